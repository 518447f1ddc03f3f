"""Decoder: a causal language model in the manner of GPT-2, with the choices that came after it.

References
----------
.. [1] Radford, Wu, Child, Luan, Amodei, Sutskever (2019), "Language models are unsupervised multitask learners".
.. [2] Su et al. (2021), "RoFormer", arXiv 2104.09864: rotary positions.
.. [3] Zhang, Sennrich (2019), "Root mean square layer normalization", arXiv 1910.07467.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from minislm.config import Config
from minislm.errors import ConfigError
from minislm.layers.attention import Rotary
from minislm.layers.base import PLAIN, Context, Grads, Tape
from minislm.layers.block import PreNormBlock
from minislm.layers.dropout import Dropout
from minislm.layers.embedding import Embedding
from minislm.layers.linear import Linear
from minislm.layers.mlp import ACTIVATIONS
from minislm.layers.norm import Norm
from minislm.models.base import Model
from minislm.models.maker import Maker
from minislm.models.parts import Parts

CHOICES = {
    "positions": ("learned", "rotary"),
    "norm": ("layer", "rms"),
    "mlp": ("plain", "gated"),
    "activation": ACTIVATIONS,
}
GATED = ("gelu", "silu")


@dataclass(frozen=True)
class DecoderConfig(Config):
    """Sizes and choices of a `Decoder`.

    Parameters
    ----------
    vocab_size, d_model, context : int
        As of every `Config`.
    layers : tuple of LayerSizes
        As of every `Config`.
    positions : {"learned", "rotary"}
        A table of vectors added to the embedding, or rotation of queries and keys.
    norm : {"layer", "rms"}
        Kind of normalization.
    mlp : {"plain", "gated"}
        Kind of feed-forward part.
    activation : {"gelu", "gelu_tanh", "relu", "silu"}
        Its activation; a gated one takes gelu or silu.
    bias : bool
        Whether Linears and layer norms have biases.
    tied : bool
        Whether the embedding is the head too.
    norm_eps : float
        Added to the variance or mean square.
    rotary_base : float
        Base of the rotary wavelengths.
    dropout : float
        Rate, while training, after the embedding and at the end of both parts of a block.
    """

    type: ClassVar[str] = "decoder"

    positions: str = "learned"
    norm: str = "layer"
    mlp: str = "plain"
    activation: str = "gelu"
    bias: bool = True
    tied: bool = True
    norm_eps: float = 1e-5
    rotary_base: float = 10000.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in CHOICES.items():
            self._check_choice(name, allowed)
        if self.mlp == "gated" and self.activation not in GATED:
            raise ConfigError("config_invalid", f"a gated mlp takes activation {GATED}, not {self.activation!r}")
        self._check_rate("dropout")
        self._check_positive("norm_eps")
        self._check_positive("rotary_base")
        for i, sizes in enumerate(self.layers):
            if self.positions == "rotary" and sizes.d_head % 2:
                raise ConfigError(
                    "config_invalid", f"rotary positions need an even d_head; layers[{i}] has {sizes.d_head}"
                )


@dataclass(frozen=True)
class Decoder(Model):
    """Embedding, pre-norm blocks, a last norm, a head.

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
    blocks : tuple of PreNormBlock
        In order.
    final_norm : Norm
        Applied to the stream before the head.
    head : Linear, optional
        From D to V; None when tied.
    """

    config: DecoderConfig
    embedding: Embedding
    positions: Embedding | None
    dropout: Dropout
    blocks: tuple[PreNormBlock, ...]
    final_norm: Norm
    head: Linear | None

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
            gated=config.mlp == "gated",
            bias=config.bias,
            last_divisor=math.sqrt(2 * config.n_layers),
        )
        return cls(
            "",
            config,
            embedding=make.table("embedding", config.vocab_size),
            positions=make.table("positions", config.context) if config.positions == "learned" else None,
            dropout=make.dropout("dropout"),
            blocks=tuple(_block(make, config, i) for i in range(config.n_layers)),
            final_norm=make.norm("final_norm"),
            head=None if config.tied else make.linear("head", config.vocab_size, config.d_model),
        )

    def hidden(self, ids: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Return the last hidden state (B, T, D), normalized as the head reads it."""
        ids_BT = self.checked(ids)
        x = self.embedding.forward(ids_BT, context, tape)
        positions_BT = self.places(ids_BT, context)
        if self.positions is not None:
            x = x + self.positions.forward(positions_BT, context, tape)
        x = self.dropout.forward(x, context, tape)
        for block in self.blocks:
            x = block.forward(x, context, tape)
        return self.final_norm.forward(x, context, tape)

    def forward(self, x: np.ndarray, context: Context = PLAIN, tape: Tape | None = None) -> np.ndarray:
        """Return the logits (B, T, V) of token ids (B, T)."""
        h = self.hidden(x, context, tape)
        return self.embedding.logits(h, tape) if self.head is None else self.head.forward(h, context, tape)

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Read `forward` and `hidden` upwards; return the gradient of the embedded tokens, (B, T, D)."""
        if self.head is None:
            dx = self.embedding.logits_backward(dy, tape, grads)
        else:
            dx = self.head.backward(dy, tape, grads)
        dx = self.final_norm.backward(dx, tape, grads)
        for block in reversed(self.blocks):
            dx = block.backward(dx, tape, grads)
        dx = self.dropout.backward(dx, tape, grads)
        if self.positions is not None:
            self.positions.backward(dx, tape, grads)
        return self.embedding.backward(dx, tape, grads)

    def lower(self, x: int, program: Any) -> int:
        """Append the whole model, from the ids in buffer `x` to the logits of the rows that are asked for."""
        h = self.embedding.lower(x, program)
        if self.positions is not None:
            at = self.positions.lower(program.positions, program)
            h = program.step("add", (h, at), width=self.config.d_model)
        for block in self.blocks:
            h = block.lower(h, program)
        h = self.final_norm.lower(program.outputs(h), program)
        return self.embedding.weight.lower(h, program) if self.head is None else self.head.lower(h, program)


def _block(make: Maker, config: DecoderConfig, i: int) -> PreNormBlock:
    """Make one block."""
    path, sizes = f"blocks.{i}", config.layers[i]
    rotary = Rotary(config.rotary_base, sizes.d_head) if config.positions == "rotary" else None
    return PreNormBlock(
        path,
        norm_1=make.norm(f"{path}.norm_1"),
        attention=make.attention(f"{path}.attention", i, sizes, rotary=rotary),
        dropout_1=make.dropout(f"{path}.dropout_1"),
        norm_2=make.norm(f"{path}.norm_2"),
        mlp=make.mlp(f"{path}.mlp", sizes.d_ff),
        dropout_2=make.dropout(f"{path}.dropout_2"),
    )
