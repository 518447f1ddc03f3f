"""What the wiring of every family asks for: layers by path, out of the Weights and vectors that Parts give."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from minislm.config import LayerSizes
from minislm.errors import ConfigError, listed
from minislm.layers.attention import Attention
from minislm.layers.block import PostNormBlock
from minislm.layers.cross_attention import CrossAttention
from minislm.layers.dropout import Dropout
from minislm.layers.embedding import Embedding
from minislm.layers.linear import Linear
from minislm.layers.mlp import GATED, MLP, GatedMLP
from minislm.layers.norm import LayerNorm, Norm, RMSNorm
from minislm.layers.rotary import Turn
from minislm.models.parts import Parts

BIASED = ("attention", "output", "mlp", "norm", "head")  # what may have biases


def check_mlp_and_biases(mlp: str, activation: str, biases: Collection[str]) -> None:
    """Refuse choices of a Config that no `Maker` can make parts of.

    Parameters
    ----------
    mlp : {"plain", "gated"}
        Kind of feed-forward part.
    activation : str
        Its activation.
    biases : collection of str
        What shall have biases.

    Raises
    ------
    ConfigError
        Code ``config_invalid``: a gate of that activation does not exist, or a part of that name.
    """
    if mlp == "gated" and activation not in GATED:
        raise ConfigError("config_invalid", f"a gated mlp takes activation {listed(GATED)}, not {activation!r}")
    if strange := sorted(set(biases) - set(BIASED)):
        raise ConfigError("config_invalid", f"biases must be {listed(BIASED)}, not {strange[0]!r}")


@dataclass(frozen=True)
class Maker:
    """Makes the layers that families have in common.

    Parameters
    ----------
    parts : Parts
        Gives Weights and vectors by path.
    d_model : int
        Width of the stream.
    activation : str
        Of feed-forward parts.
    norm_eps : float
        Added to the variance or mean square.
    dropout_rate : float
        Of every Dropout.
    norm_kind : {"layer", "rms"}
        Kind of normalization.
    gated : bool
        Whether feed-forward parts are gated.
    norm_offset : float
        Added to the gain of RMS norms.
    biases : collection of str
        What has biases, of `BIASED`: the first three projections of attention, its last one, feed-forward parts, layer
        norms, and every other Linear.
    scale : float, optional
        Standard deviation of fresh matrices; None: sqrt(2 / (O + I)) for each (Glorot and Bengio, 2010, equation 12).
    last_divisor : float
        What it is divided by where a part of a block ends.
    """

    parts: Parts
    d_model: int
    activation: str
    norm_eps: float
    dropout_rate: float
    norm_kind: str = "layer"
    gated: bool = False
    norm_offset: float = 0.0
    biases: Collection[str] = BIASED
    scale: float | None = 0.02
    last_divisor: float = 1.0

    def linear(self, path: str, n_outputs: int, n_inputs: int, *, last: bool = False, of: str = "head") -> Linear:
        """Make a Linear.

        Parameters
        ----------
        path : str
            Its path.
        n_outputs, n_inputs : int
            Shape of its Weight.
        last : bool
            Whether it ends a part of a block.
        of : str
            What it belongs to, of `BIASED`.

        Returns
        -------
        Linear
            With a bias, where the model has biases.
        """
        scale = math.sqrt(2.0 / (n_outputs + n_inputs)) if self.scale is None else self.scale
        scale = scale / self.last_divisor if last else scale
        weight = self.parts.matrix(f"{path}.weight", n_outputs, n_inputs, scale=scale)
        bias = self.parts.vector(f"{path}.bias", n_outputs, value=0.0) if of in self.biases else None
        return Linear(path, weight, bias)

    def table(self, path: str, n_rows: int, *, scale: float = 0.02) -> Embedding:
        """Make a table of vectors of the stream's width.

        Parameters
        ----------
        path : str
            Its path.
        n_rows : int
            Number of vectors.
        scale : float
            Standard deviation of fresh ones.

        Returns
        -------
        Embedding
            The table.
        """
        return Embedding(path, self.parts.matrix(f"{path}.weight", n_rows, self.d_model, scale=scale))

    def norm(self, path: str, width: int | None = None) -> Norm:
        """Make a normalization.

        Parameters
        ----------
        path : str
            Its path.
        width : int, optional
            Of what it normalizes; None: of the stream.

        Returns
        -------
        Norm
            Of the model's kind.
        """
        width = self.d_model if width is None else width
        gain = self.parts.vector(f"{path}.weight", width, value=1.0 - self.norm_offset)
        if self.norm_kind == "rms":
            return RMSNorm(path, gain, self.norm_eps, self.norm_offset)
        bias = self.parts.vector(f"{path}.bias", width, value=0.0) if "norm" in self.biases else None
        return LayerNorm(path, gain, bias, self.norm_eps)

    def attention(
        self,
        path: str,
        layer: int,
        sizes: LayerSizes,
        *,
        causal: bool = True,
        turn: Turn | None = None,
        normed: str = "none",
        window: int | None = None,
        scale: float | None = None,
        cap: float | None = None,
        biased: bool = False,
    ) -> Attention:
        """Make the self-attention of a block.

        Parameters
        ----------
        path : str
            Its path.
        layer : int
            Number of the block.
        sizes : LayerSizes
            Of the block.
        causal : bool
            Whether a position sees only itself and earlier ones.
        turn : Turn, optional
            Rotation of queries and keys.
        normed : {"none", "head", "whole"}
            Which parts of queries and keys are normalized.
        window : int, optional
            As of `Attention`.
        scale, cap : float, optional
            As of `Attention`.
        biased : bool
            As of `Attention`.

        Returns
        -------
        Attention
            With fresh or stored projections.
        """
        projections = self._projections(path, layer, sizes)
        norms: dict[str, Any] = {}
        if normed != "none":
            for which, n_heads in (("query", sizes.n_heads), ("key", sizes.n_kv_heads)):
                width = sizes.d_head * (n_heads if normed == "whole" else 1)
                norms[f"{which}_norm"] = self.norm(f"{path}.{which}_norm", width)
        options: dict[str, Any] = {"window": window, "scale": scale, "cap": cap, "biased": biased}
        return Attention(path, **projections, causal=causal, turn=turn, **options, **norms)

    def cross_attention(
        self, path: str, layer: int, sizes: LayerSizes, *, scale: float | None = None
    ) -> CrossAttention:
        """Make the attention of a block to the encoder's memory.

        Parameters
        ----------
        path : str
            Its path.
        layer : int
            Number of the block.
        sizes : LayerSizes
            Of the block.
        scale : float, optional
            As of `CrossAttention`.

        Returns
        -------
        CrossAttention
            With fresh or stored projections.
        """
        return CrossAttention(path, **self._projections(path, layer, sizes), scale=scale)

    def mlp(self, path: str, d_ff: int) -> MLP | GatedMLP:
        """Make the feed-forward part of a block.

        Parameters
        ----------
        path : str
            Its path.
        d_ff : int
            Its width.

        Returns
        -------
        MLP or GatedMLP
            As the model has it.
        """
        up = self.linear(f"{path}.up", d_ff, self.d_model, of="mlp")
        down = self.linear(f"{path}.down", self.d_model, d_ff, last=True, of="mlp")
        if not self.gated:
            return MLP(path, up, down, self.activation)
        return GatedMLP(
            path, self.linear(f"{path}.gate", d_ff, self.d_model, of="mlp"), up, down, f"{self.activation}_gate"
        )

    def both_ways(self, path: str, layer: int, sizes: LayerSizes) -> PostNormBlock:
        """Make a post-norm block whose positions see each other in both directions.

        Parameters
        ----------
        path : str
            Its path.
        layer : int
            Number of the block.
        sizes : LayerSizes
            Of the block.

        Returns
        -------
        PostNormBlock
            A block of an encoder.
        """
        return PostNormBlock(
            path,
            attention=self.attention(f"{path}.attention", layer, sizes, causal=False),
            dropout_1=self.dropout(f"{path}.dropout_1"),
            norm_1=self.norm(f"{path}.norm_1"),
            mlp=self.mlp(f"{path}.mlp", sizes.d_ff),
            dropout_2=self.dropout(f"{path}.dropout_2"),
            norm_2=self.norm(f"{path}.norm_2"),
        )

    def dropout(self, path: str) -> Dropout:
        """Make a Dropout.

        Parameters
        ----------
        path : str
            Its path, from which its randomness derives.

        Returns
        -------
        Dropout
            At the model's rate.
        """
        return Dropout(path, self.dropout_rate)

    def _projections(self, path: str, layer: int, sizes: LayerSizes) -> dict[str, Any]:
        """Make what both kinds of attention consist of."""
        d, width, kv_width = self.d_model, sizes.n_heads * sizes.d_head, sizes.n_kv_heads * sizes.d_head
        return {
            "query": self.linear(f"{path}.query", width, d, of="attention"),
            "key": self.linear(f"{path}.key", kv_width, d, of="attention"),
            "value": self.linear(f"{path}.value", kv_width, d, of="attention"),
            "output": self.linear(f"{path}.output", d, width, last=True, of="output"),
            "layer": layer,
            "n_heads": sizes.n_heads,
            "n_kv_heads": sizes.n_kv_heads,
            "d_head": sizes.d_head,
        }
