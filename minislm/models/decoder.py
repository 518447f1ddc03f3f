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

from minislm.config import Config, LayerSizes
from minislm.errors import ConfigError, GenerationError
from minislm.layers.attention import Attention, Rotary
from minislm.layers.base import PLAIN, Context, Grads, Tape
from minislm.layers.block import PreNormBlock
from minislm.layers.dropout import Dropout
from minislm.layers.embedding import Embedding
from minislm.layers.linear import Linear
from minislm.layers.mlp import MLP, GatedMLP
from minislm.layers.norm import LayerNorm, Norm, RMSNorm
from minislm.models.base import Model
from minislm.models.parts import Parts

CHOICES = {
    "positions": ("learned", "rotary"),
    "norm": ("layer", "rms"),
    "mlp": ("plain", "gated"),
    "activation": ("gelu", "gelu_tanh", "relu", "silu"),
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
            if getattr(self, name) not in allowed:
                raise ConfigError("config_invalid", f"{name} must be one of {allowed}, not {getattr(self, name)!r}")
        if self.mlp == "gated" and self.activation not in GATED:
            raise ConfigError("config_invalid", f"a gated mlp takes activation {GATED}, not {self.activation!r}")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError("config_invalid", f"dropout must lie in [0, 1), not {self.dropout}")
        for name in ("norm_eps", "rotary_base"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError("config_invalid", f"{name} must be a positive number, not {value}")
        for i, sizes in enumerate(self.layers):
            if self.positions == "rotary" and sizes.d_head % 2:
                raise ConfigError(
                    "config_invalid", f"rotary positions need an even d_head; layers[{i}] has {sizes.d_head}"
                )

    @classmethod
    def uniform(
        cls,
        *,
        vocab_size: int,
        d_model: int,
        context: int,
        n_layers: int,
        n_heads: int,
        n_kv_heads: int | None = None,
        d_ff: int | None = None,
        **choices: Any,
    ) -> Self:
        """Make a Config whose blocks all have the same sizes.

        Parameters
        ----------
        vocab_size, d_model, context, n_layers, n_heads : int
            As the fields; the head width is ``d_model / n_heads``.
        n_kv_heads : int, optional
            Key and value heads; default: `n_heads`.
        d_ff : int, optional
            Feed-forward width; default: four times `d_model`.
        **choices
            The other fields.

        Returns
        -------
        DecoderConfig
            The record.

        Raises
        ------
        ConfigError
            Code ``config_invalid``: `d_model` is no multiple of `n_heads`, or a field is out of range.
        """
        if n_heads < 1 or d_model % n_heads:
            raise ConfigError("config_invalid", f"d_model ({d_model}) must be a multiple of n_heads ({n_heads})")
        sizes = LayerSizes(n_heads, n_kv_heads or n_heads, d_model // n_heads, d_ff or 4 * d_model)
        return cls(vocab_size=vocab_size, d_model=d_model, context=context, layers=(sizes,) * n_layers, **choices)


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
        make = _Maker(config, parts)
        return cls(
            "",
            config,
            embedding=make.table("embedding", config.vocab_size),
            positions=make.table("positions", config.context) if config.positions == "learned" else None,
            dropout=Dropout("dropout", config.dropout),
            blocks=tuple(make.block(i, sizes) for i, sizes in enumerate(config.layers)),
            final_norm=make.norm("final_norm"),
            head=None if config.tied else make.linear("head", config.vocab_size, config.d_model),
        )

    def hidden(self, ids: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Return the last hidden state (B, T, D), normalized as the head reads it."""
        ids_BT = self.checked(ids)
        x = self.embedding.forward(ids_BT, context, tape)
        positions_BT = context.starts(len(ids_BT))[:, None] + np.arange(ids_BT.shape[1])
        if positions_BT.size and positions_BT.max() >= self.config.context:
            raise GenerationError(
                "context_length_exceeded",
                f"position {positions_BT.max()} lies outside the model's context of {self.config.context} positions; "
                "pass fewer tokens",
            )
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


class _Maker:
    """Makes the layers that a `DecoderConfig` describes."""

    def __init__(self, config: DecoderConfig, parts: Parts) -> None:
        self.config = config
        self.parts = parts

    def linear(self, path: str, n_outputs: int, n_inputs: int, *, scale: float = 0.02) -> Linear:
        weight = self.parts.matrix(f"{path}.weight", n_outputs, n_inputs, scale=scale)
        return Linear(
            path, weight, self.parts.vector(f"{path}.bias", n_outputs, value=0.0) if self.config.bias else None
        )

    def table(self, path: str, n_rows: int) -> Embedding:
        return Embedding(path, self.parts.matrix(f"{path}.weight", n_rows, self.config.d_model))

    def norm(self, path: str) -> Norm:
        d, eps = self.config.d_model, self.config.norm_eps
        gain = self.parts.vector(f"{path}.weight", d, value=1.0)
        if self.config.norm == "rms":
            return RMSNorm(path, gain, eps)
        return LayerNorm(path, gain, self.parts.vector(f"{path}.bias", d, value=0.0) if self.config.bias else None, eps)

    def attention(self, path: str, layer: int, sizes: LayerSizes) -> Attention:
        d, width, kv_width = self.config.d_model, sizes.n_heads * sizes.d_head, sizes.n_kv_heads * sizes.d_head
        return Attention(
            path,
            query=self.linear(f"{path}.query", width, d),
            key=self.linear(f"{path}.key", kv_width, d),
            value=self.linear(f"{path}.value", kv_width, d),
            output=self.linear(f"{path}.output", d, width, scale=self.last_scale),
            layer=layer,
            n_heads=sizes.n_heads,
            n_kv_heads=sizes.n_kv_heads,
            d_head=sizes.d_head,
            rotary=Rotary(self.config.rotary_base, sizes.d_head) if self.config.positions == "rotary" else None,
        )

    def mlp(self, path: str, d_ff: int) -> MLP | GatedMLP:
        d, activation = self.config.d_model, self.config.activation
        up = self.linear(f"{path}.up", d_ff, d)
        down = self.linear(f"{path}.down", d, d_ff, scale=self.last_scale)
        if self.config.mlp == "plain":
            return MLP(path, up, down, activation)
        return GatedMLP(path, self.linear(f"{path}.gate", d_ff, d), up, down, f"{activation}_gate")

    def block(self, i: int, sizes: LayerSizes) -> PreNormBlock:
        path = f"blocks.{i}"
        return PreNormBlock(
            path,
            norm_1=self.norm(f"{path}.norm_1"),
            attention=self.attention(f"{path}.attention", i, sizes),
            dropout_1=Dropout(f"{path}.dropout_1", self.config.dropout),
            norm_2=self.norm(f"{path}.norm_2"),
            mlp=self.mlp(f"{path}.mlp", sizes.d_ff),
            dropout_2=Dropout(f"{path}.dropout_2", self.config.dropout),
        )

    @property
    def last_scale(self) -> float:
        return 0.02 / math.sqrt(2 * self.config.n_layers)
