"""Decoder: a causal language model in the manner of GPT-2, with the choices that came after it.

References
----------
.. [1] Radford, Wu, Child, Luan, Amodei, Sutskever (2019), "Language models are unsupervised multitask learners".
.. [2] Su et al. (2021), "RoFormer", arXiv 2104.09864: rotary positions.
.. [3] Zhang, Sennrich (2019), "Root mean square layer normalization", arXiv 1910.07467.
.. [4] Gemma Team (2024), "Gemma 2", arXiv 2408.00118: norms on both sides, soft caps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from minislm.config import Config, LayerSizes
from minislm.errors import ConfigError
from minislm.layers.base import PLAIN, Context, Grads, Tape
from minislm.layers.block import ParallelBlock, PreNormBlock
from minislm.layers.dropout import Dropout
from minislm.layers.embedding import Embedding
from minislm.layers.linear import Linear
from minislm.layers.mlp import ACTIVATIONS
from minislm.layers.norm import Norm
from minislm.layers.rotary import LongRope, Rotary
from minislm.layers.soft_cap import SoftCap
from minislm.models.base import TokenModel
from minislm.models.maker import BIASED, Maker, check_mlp_and_biases
from minislm.models.parts import Parts
from minislm.models.rotary_fields import longest_context

CHOICES = {
    "block": ("sequential", "parallel"),
    "positions": ("learned", "rotary"),
    "norm": ("layer", "rms"),
    "norm_place": ("before", "after", "around"),
    "query_key_norm": ("none", "head", "whole"),
    "mlp": ("plain", "gated"),
    "activation": ACTIVATIONS,
}


@dataclass(frozen=True)
class DecoderConfig(Config):
    """Sizes and choices of a `Decoder`.

    Parameters
    ----------
    vocab_size, d_model, context : int
        As of every `Config`.
    layers : tuple of LayerSizes
        As of every `Config`.
    block : {"sequential", "parallel"}
        Whether the feed-forward part reads what attention gave, or the same as it.
    positions : {"learned", "rotary"}
        A table of vectors added to the embedding, or rotation of queries and keys.
    rotaries : tuple of Rotary
        The kinds of rotation, of which each block names one; empty with rotary positions: the usual one.
    norm : {"layer", "rms"}
        Kind of normalization.
    norm_place : {"before", "after", "around"}
        Where it stands: before each part of a block, after, or both.
    norm_eps : float
        Added to the variance or mean square.
    norm_offset : float
        Added to the gain of RMS norms.
    query_key_norm : {"none", "head", "whole"}
        Whether queries and keys are normalized too: each head by itself, or all of a position together.
    mlp : {"plain", "gated"}
        Kind of feed-forward part.
    activation : {"gelu", "gelu_tanh", "relu", "silu"}
        Its activation; a gated one does not take relu.
    biases : tuple of {"attention", "output", "mlp", "norm", "head"}
        What has biases: the projections to queries, keys and values; that of attention's result; the feed-forward
        part; layer norms; an untied head.
    tied : bool
        Whether the embedding is the head too.
    attention_scale : float, optional
        Factor of attention's scores; None: 1 / sqrt(d_head).
    attention_cap : float, optional
        Soft bound of attention's scores; None: none.
    logit_cap : float, optional
        Soft bound of the logits; None: none.
    embedding_scale, residual_scale, logit_scale : float
        Factors of the embedded tokens, of what each part of a block adds, and of the logits.
    dropout : float
        Rate, while training, after the embedding and at the end of both parts of a block.
    """

    type: ClassVar[str] = "decoder"
    records: ClassVar[Mapping[str, Callable[..., Any]]] = {"layers": LayerSizes, "rotaries": Rotary}

    block: str = "sequential"
    positions: str = "learned"
    rotaries: tuple[Rotary, ...] = ()
    norm: str = "layer"
    norm_place: str = "before"
    norm_eps: float = 1e-5
    norm_offset: float = 0.0
    query_key_norm: str = "none"
    mlp: str = "plain"
    activation: str = "gelu"
    biases: tuple[str, ...] = BIASED
    tied: bool = True
    attention_scale: float | None = None
    attention_cap: float | None = None
    logit_cap: float | None = None
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in CHOICES.items():
            self._check_choice(name, allowed)
        check_mlp_and_biases(self.mlp, self.activation, self.biases)
        if self.block == "parallel" and self.norm_place != "before":
            raise ConfigError("config_invalid", "a parallel block has its norm before both parts")
        self._check_rate("dropout")
        self._check_positive("norm_eps")
        for name in ("attention_scale", "attention_cap", "logit_cap"):
            if getattr(self, name) is not None:
                self._check_positive(name)
        if self.positions == "rotary" and not self.rotaries:
            object.__setattr__(self, "rotaries", (Rotary(10000.0, self.layers[0].d_head),))
        for i, sizes in enumerate(self.layers):
            self._check_rotary(i, sizes)

    @property
    def longest_context(self) -> int | None:
        """The most positions that it learned; None: its rotation is stretched, as it has to be for more of them."""
        scalings = [rotary.scaling for rotary in self.rotaries if rotary.scaling is not None]
        stretched = not all(isinstance(scaling, LongRope) for scaling in scalings)
        return None if stretched else longest_context(self.rotaries, self.context)

    def _check_rotary(self, i: int, sizes: LayerSizes) -> None:
        """Refuse a rotation that the block cannot have."""
        if self.positions != "rotary" or sizes.rotary is None:
            return
        if sizes.rotary >= len(self.rotaries):
            raise ConfigError(
                "config_invalid", f"layers[{i}] names rotary {sizes.rotary}; there are {len(self.rotaries)}"
            )
        width = self.rotaries[sizes.rotary].width
        if width > sizes.d_head:
            raise ConfigError("config_invalid", f"layers[{i}] rotates {width} of d_head {sizes.d_head}")


@dataclass(frozen=True)
class Decoder(TokenModel):
    """Embedding, blocks, a last norm, a head.

    Parameters
    ----------
    path : str
        Empty.
    config : DecoderConfig
        Sizes and choices.
    embedding : Embedding
        Token vectors; the head too, when tied.
    positions : Embedding, optional
        Learned position vectors; None with rotary positions.
    dropout : Dropout
        Applied to the embedded tokens.
    blocks : tuple of PreNormBlock or ParallelBlock
        In order.
    final_norm : Norm
        Applied to the stream before the head.
    head : Linear, optional
        From D to V; None when tied.
    cap : SoftCap, optional
        Applied to the logits.
    """

    config: DecoderConfig
    embedding: Embedding
    positions: Embedding | None
    dropout: Dropout
    blocks: tuple[PreNormBlock | ParallelBlock, ...]
    final_norm: Norm
    head: Linear | None
    cap: SoftCap | None

    @classmethod
    def wired(cls, config: DecoderConfig, parts: Parts) -> Self:
        """Make the model that `config` describes out of the Weights and vectors that `parts` gives by path.

        Fresh matrices have the deviation 0.02, and 0.02 / sqrt(2 L) where a part of a block ends [1]_.
        """
        make = Maker(
            parts,
            config.d_model,
            config.activation,
            config.norm_eps,
            config.dropout,
            norm_kind=config.norm,
            norm_offset=config.norm_offset,
            gated=config.mlp == "gated",
            biases=config.biases,
            last_divisor=math.sqrt(2 * config.n_layers),
        )
        made = _parallel if config.block == "parallel" else _sequential
        return cls(
            "",
            config,
            embedding=make.table("embedding", config.vocab_size),
            positions=make.table("positions", config.context) if config.positions == "learned" else None,
            dropout=make.dropout("dropout"),
            blocks=tuple(made(make, config, i) for i in range(config.n_layers)),
            final_norm=make.norm("final_norm"),
            head=None if config.tied else make.linear("head", config.vocab_size, config.d_model),
            cap=None if config.logit_cap is None else SoftCap("cap", config.logit_cap),
        )

    def hidden(self, ids: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Return the last hidden state (B, T, D), normalized as the head reads it."""
        ids_BT = self.checked(ids)
        x = _scaled(self.embedding.forward(ids_BT, context, tape), self.config.embedding_scale)
        positions_BT = self.places(ids_BT, context)
        if self.positions is not None:
            x = x + self.positions.forward(positions_BT, context, tape)
        x = self.dropout.forward(x, context, tape)
        for block in self.blocks:
            x = block.forward(x, context, tape)
        return self.final_norm.forward(x, context, tape)

    def logits(self, h: np.ndarray, context: Context = PLAIN, tape: Tape | None = None) -> np.ndarray:
        """Return the logits (..., V) of hidden states (..., D)."""
        logits = self.embedding.logits(h, tape) if self.head is None else self.head.forward(h, context, tape)
        logits = _scaled(logits, self.config.logit_scale)
        return logits if self.cap is None else self.cap.forward(logits, context, tape)

    def logits_backward(self, dlogits: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Read `logits` upwards; return the gradient of the hidden states, (..., D)."""
        dy = dlogits if self.cap is None else self.cap.backward(dlogits, tape, grads)
        dy = _scaled(dy, self.config.logit_scale)
        if self.head is None:
            return self.embedding.logits_backward(dy, tape, grads)
        return self.head.backward(dy, tape, grads)

    def hidden_backward(self, dh: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Read `hidden` upwards; return the gradient of the embedded tokens, (B, T, D)."""
        dx = self.final_norm.backward(dh, tape, grads)
        for block in reversed(self.blocks):
            dx = block.backward(dx, tape, grads)
        dx = self.dropout.backward(dx, tape, grads)
        if self.positions is not None:
            self.positions.backward(dx, tape, grads)
        return self.embedding.backward(_scaled(dx, self.config.embedding_scale), tape, grads)

    def lower(self, x: int, program: Any) -> int:
        """Append the whole model, from the ids in buffer `x` to the logits of the rows that are asked for."""
        h = program.scaled(self.embedding.lower(x, program), self.config.embedding_scale)
        if self.positions is not None:
            at = self.positions.lower(program.positions, program)
            h = program.step("add", (h, at), width=self.config.d_model)
        for block in self.blocks:
            h = block.lower(h, program)
        h = self.final_norm.lower(program.outputs(h), program)
        h = self.embedding.weight.lower(h, program) if self.head is None else self.head.lower(h, program)
        h = program.scaled(h, self.config.logit_scale)
        return h if self.cap is None else self.cap.lower(h, program)


def _sequential(make: Maker, config: DecoderConfig, i: int) -> PreNormBlock:
    """Make a block whose parts follow each other."""
    path, sizes = f"blocks.{i}", config.layers[i]
    before, after = config.norm_place != "after", config.norm_place != "before"
    return PreNormBlock(
        path,
        norm_1=make.norm(f"{path}.norm_1") if before else None,
        attention=make.attention(f"{path}.attention", i, sizes, **_attending(config, sizes)),
        dropout_1=make.dropout(f"{path}.dropout_1"),
        norm_2=make.norm(f"{path}.norm_2") if before else None,
        mlp=make.mlp(f"{path}.mlp", sizes.d_ff),
        dropout_2=make.dropout(f"{path}.dropout_2"),
        after_1=make.norm(f"{path}.after_1") if after else None,
        after_2=make.norm(f"{path}.after_2") if after else None,
        scale=config.residual_scale,
    )


def _parallel(make: Maker, config: DecoderConfig, i: int) -> ParallelBlock:
    """Make a block whose parts read the same."""
    path, sizes = f"blocks.{i}", config.layers[i]
    return ParallelBlock(
        path,
        norm_1=make.norm(f"{path}.norm_1"),
        attention=make.attention(f"{path}.attention", i, sizes, **_attending(config, sizes)),
        dropout_1=make.dropout(f"{path}.dropout_1"),
        mlp=make.mlp(f"{path}.mlp", sizes.d_ff),
        dropout_2=make.dropout(f"{path}.dropout_2"),
    )


def _attending(config: DecoderConfig, sizes: LayerSizes) -> dict[str, Any]:
    """Say how a block's attention sees."""
    rotates = config.positions == "rotary" and sizes.rotary is not None
    return {
        "turn": config.rotaries[sizes.rotary or 0].turn(config.context) if rotates else None,
        "normed": config.query_key_norm,
        "window": sizes.window,
        "scale": config.attention_scale,
        "cap": config.attention_cap,
    }


def _scaled(x: np.ndarray, factor: float) -> np.ndarray:
    return x if factor == 1 else x * factor
