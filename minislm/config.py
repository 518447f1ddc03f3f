"""Config: a frozen record of a model's sizes and choices. It describes, it never computes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from minislm.errors import ConfigError


@dataclass(frozen=True)
class LayerSizes:
    """The sizes of one block, which pruning may make different from block to block.

    Parameters
    ----------
    n_heads : int
        Query heads.
    n_kv_heads : int
        Key and value heads; divides `n_heads`.
    d_head : int
        Width of a head.
    d_ff : int
        Width of the feed-forward part.
    """

    n_heads: int
    n_kv_heads: int
    d_head: int
    d_ff: int


@dataclass(frozen=True)
class Config:
    """What every architecture has; each family adds its choices in its own file.

    Parameters
    ----------
    vocab_size : int
        Number of token ids.
    d_model : int
        Width of the residual stream.
    context : int
        Largest number of positions.
    layers : tuple of LayerSizes
        One entry for each block, always written out.
    """

    type: ClassVar[str]

    vocab_size: int
    d_model: int
    context: int
    layers: tuple[LayerSizes, ...]

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "context"):
            _positive(name, getattr(self, name))
        if not self.layers:
            raise ConfigError("config_invalid", "layers must hold at least one LayerSizes; it is empty")
        for i, sizes in enumerate(self.layers):
            for field in dataclasses.fields(sizes):
                _positive(f"layers[{i}].{field.name}", getattr(sizes, field.name))
            if sizes.n_heads % sizes.n_kv_heads:
                raise ConfigError(
                    "config_invalid",
                    f"layers[{i}]: n_heads ({sizes.n_heads}) must be a multiple of n_kv_heads ({sizes.n_kv_heads})",
                )

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.layers)

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values.

        Returns
        -------
        dict
            What `from_json` makes an equal record from.
        """
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Make a Config from `to_json`'s dictionary.

        Parameters
        ----------
        values : dict
            Field names to JSON values; every field without a default must be there, and no other.

        Returns
        -------
        Config
            An instance of the class that it is called on.

        Raises
        ------
        ConfigError
            Code ``config_invalid``: a field is missing, unknown, of the wrong type or out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if strange := sorted(set(values) - known):
            raise ConfigError("config_invalid", f"{cls.__name__} has no field {strange[0]!r}; it has {sorted(known)}")
        try:
            layers = tuple(LayerSizes(**sizes) for sizes in values["layers"])
            return cls(**{**values, "layers": layers})
        except (KeyError, TypeError, OverflowError) as error:
            raise ConfigError("config_invalid", f"{cls.__name__} cannot be made from these fields: {error}") from error


def _positive(name: str, value: object) -> None:
    if type(value) is not int or not 0 < value < 2**31:
        raise ConfigError("config_invalid", f"{name} must be a whole number from 1 to 2147483647, not {value!r}")
