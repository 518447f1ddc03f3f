"""Bottleneck: an encoder's parts as MobileBERT has them.

References
----------
.. [1] Sun et al. (2020), "MobileBERT: a compact task-agnostic BERT for resource-limited devices", arXiv 2004.02984.
"""

from __future__ import annotations

from dataclasses import dataclass

from minislm.config import LayerSizes
from minislm.errors import ConfigError
from minislm.layers.affine import Affine
from minislm.layers.bottleneck import BottleneckAttention, BottleneckBlock, Narrowed, ResidualMLP
from minislm.layers.mlp import MLP
from minislm.layers.trigrams import Trigrams
from minislm.models.maker import Maker


@dataclass(frozen=True)
class Bottleneck:
    """How MobileBERT differs from BERT ([1]_, table 1).

    Blocks work on a narrower stream, and have several feed-forward parts; a gain and an offset stand for every norm but
    those of heads; the vectors of tokens are narrow too, and three neighbours make one of the stream.

    Parameters
    ----------
    width : int
        Of the stream inside blocks.
    n_mlps : int
        Feed-forward parts of a block.
    d_embedding : int
        Width of the vectors of tokens.

    Raises
    ------
    ConfigError
        Code ``config_invalid``: not whole numbers from 1.
    """

    width: int
    n_mlps: int
    d_embedding: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if type(value) is not int or not 0 < value < 2**31:
                raise ConfigError("config_invalid", f"bottleneck.{name} must be a whole number from 1, not {value!r}")

    def trigrams(self, make: Maker) -> Trigrams:
        """Make what widens the vectors of tokens.

        Parameters
        ----------
        make : Maker
            Of the model.

        Returns
        -------
        Trigrams
            From three vectors to one of the stream.
        """
        return Trigrams("neighbours", make.linear("trigrams", make.d_model, 3 * self.d_embedding))

    def block(self, make: Maker, path: str, layer: int, sizes: LayerSizes) -> BottleneckBlock:
        """Make a block.

        Parameters
        ----------
        make : Maker
            Of the model.
        path : str
            Of the block.
        layer : int
            Its number.
        sizes : LayerSizes
            Of its attention, and of each of its feed-forward parts.

        Returns
        -------
        BottleneckBlock
            The block.
        """

        def residual(path: str) -> ResidualMLP:
            up = make.linear(f"{path}.up", sizes.d_ff, self.width, of="mlp")
            down = make.linear(f"{path}.down", self.width, sizes.d_ff, last=True, of="mlp")
            return ResidualMLP(path, MLP(path, up, down, make.activation), affine(make, f"{path}.norm", self.width))

        return BottleneckBlock(
            path,
            enter=self._narrowed(make, f"{path}.enter"),
            attention=self._attention(make, f"{path}.attention", layer, sizes),
            norm_1=affine(make, f"{path}.norm_1", self.width),
            mlps=tuple(residual(f"{path}.mlps.{number}") for number in range(self.n_mlps - 1)),
            mlp=residual(f"{path}.mlp"),
            leave=make.linear(f"{path}.leave", make.d_model, self.width, last=True),
            dropout=make.dropout(f"{path}.dropout"),
            norm_2=affine(make, f"{path}.norm_2", make.d_model),
        )

    def _attention(self, make: Maker, path: str, layer: int, sizes: LayerSizes) -> BottleneckAttention:
        width, kv_width = sizes.n_heads * sizes.d_head, sizes.n_kv_heads * sizes.d_head
        return BottleneckAttention(
            path=path,
            query=make.linear(f"{path}.query", width, self.width, of="attention"),
            key=make.linear(f"{path}.key", kv_width, self.width, of="attention"),
            value=make.linear(f"{path}.value", kv_width, make.d_model, of="attention"),
            output=make.linear(f"{path}.output", self.width, width, last=True, of="output"),
            layer=layer,
            n_heads=sizes.n_heads,
            n_kv_heads=sizes.n_kv_heads,
            d_head=sizes.d_head,
            shared=self._narrowed(make, f"{path}.shared"),
        )

    def _narrowed(self, make: Maker, path: str) -> Narrowed:
        dense = make.linear(f"{path}.dense", self.width, make.d_model)
        return Narrowed(path, dense, affine(make, f"{path}.norm", self.width))


def affine(make: Maker, path: str, width: int) -> Affine:
    """Make what stands for a norm.

    Parameters
    ----------
    make : Maker
        Of the model.
    path : str
        Its path.
    width : int
        Of what it changes.

    Returns
    -------
    Affine
        Fresh ones change nothing.
    """
    gain, offset = (make.parts.vector(f"{path}.{name}", width, value=y) for name, y in (("weight", 1.0), ("bias", 0.0)))
    return Affine(path, gain, offset)
