"""Config: a frozen record of a model's sizes and choices. It describes, it never computes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from minislm.errors import ConfigError, listed

HEAD_KINDS = ("masked", "sequence", "token", "span")
MOST_HEAD = 2**16  # the angles of a head are computed before its weights are looked at
LABELLED = ("sequence", "token")
PROBLEMS = ("single_label", "multi_label", "regression")


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
    window : int, optional
        How many positions back, itself counted, a position sees; None: all.
    rotary : int, optional
        Which of the model's kinds of rotary positions turns its queries and keys, where it has any; None: none.
    """

    n_heads: int
    n_kv_heads: int
    d_head: int
    d_ff: int
    window: int | None = None
    rotary: int | None = 0

    @classmethod
    def of_width(cls, d_model: int, n_heads: int, n_kv_heads: int | None = None, d_ff: int | None = None) -> LayerSizes:
        """Choose the usual sizes for a width of the stream.

        Parameters
        ----------
        d_model : int
            The width; the heads share it out among them.
        n_heads : int
            Query heads.
        n_kv_heads : int, optional
            Key and value heads; default: `n_heads`.
        d_ff : int, optional
            Feed-forward width; default: four times `d_model`.

        Returns
        -------
        LayerSizes
            The sizes.

        Raises
        ------
        ConfigError
            Code ``config_invalid``: `d_model` is no multiple of `n_heads`.
        """
        if n_heads < 1 or d_model % n_heads:
            raise ConfigError("config_invalid", f"d_model ({d_model}) must be a multiple of n_heads ({n_heads})")
        return cls(n_heads, n_kv_heads or n_heads, d_model // n_heads, d_ff or 4 * d_model)


@dataclass(frozen=True)
class Head:
    """What an encoder says about a text, and under which name.

    Parameters
    ----------
    name : str
        Of its results and in its arrays' names; no dot, and not ``"hidden"``, as the last hidden state is called.
    kind : {"masked", "sequence", "token", "span"}
        The token that stood at each position; one class for a text; one class for each token, such as BIO tags; or
        where an answer starts and ends.
    labels : tuple of str
        The classes of a sequence or token head, in the order of its logits; empty for the other kinds.
    problem : {"single_label", "multi_label", "regression"}
        Of how many of its classes a text is: one, whose probabilities are the softmax of the logits; or any number,
        each with a probability of its own, the logistic function of its logit. Or the logits are numbers that were to
        be found, such as how similar two texts are. The last two are for sequence heads alone.

    Raises
    ------
    ConfigError
        Code ``config_invalid``: an impossible name, an unknown kind, or labels or a problem that the kind cannot have.
    """

    name: str
    kind: str
    labels: tuple[str, ...] = ()
    problem: str = "single_label"

    def __post_init__(self) -> None:
        if type(self.name) is not str or not self.name or "." in self.name or self.name == "hidden":
            raise ConfigError(
                "config_invalid", f"a head's name must be text without a dot, and not 'hidden'; it is {self.name!r}"
            )
        if self.kind not in HEAD_KINDS:
            raise ConfigError(
                "config_invalid", f"the kind of head {self.name!r} must be {listed(HEAD_KINDS)}, not {self.kind!r}"
            )
        if type(self.labels) is not tuple or not all(type(label) is str for label in self.labels):
            raise ConfigError(
                "config_invalid", f"the labels of head {self.name!r} must be a tuple of texts, not {self.labels!r}"
            )
        if self.problem not in (PROBLEMS if self.kind == "sequence" else PROBLEMS[:1]):
            raise ConfigError(
                "config_invalid",
                f"the problem of head {self.name!r} must be {listed(PROBLEMS)}, all but the first of a sequence head "
                f"alone; it is {self.problem!r}, and the head's kind is {self.kind!r}",
            )
        if len(set(self.labels)) < len(self.labels):
            raise ConfigError("config_invalid", f"the labels of head {self.name!r} repeat: {self.labels!r}")
        if bool(self.labels) != (self.kind in LABELLED):
            expected = "at least one label" if self.kind in LABELLED else "no labels"
            raise ConfigError(
                "config_invalid", f"a {self.kind} head has {expected}; {self.name!r} has {len(self.labels)}"
            )


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
    records: ClassVar[Mapping[str, Callable[..., Any]]] = {"layers": LayerSizes}  # fields that are tuples of them

    vocab_size: int
    d_model: int
    context: int
    layers: tuple[LayerSizes, ...]

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "context"):
            _positive(name, getattr(self, name))
        self._check_layers("layers")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "bool" and type(value) is not bool:
                raise ConfigError("config_invalid", f"{field.name} must be true or false, not {value!r}")
            if field.type == "float" or (field.type == "float | None" and value is not None):
                _finite(field.name, value)

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
        vocab_size, d_model, context, n_layers : int
            As the fields.
        n_heads, n_kv_heads, d_ff : int
            As of `LayerSizes.of_width`.
        **choices
            The other fields.

        Returns
        -------
        Config
            The record, of the class that it is called on.

        Raises
        ------
        ConfigError
            Code ``config_invalid``: `d_model` is no multiple of `n_heads`, or a field is out of range.
        """
        sizes = LayerSizes.of_width(d_model, n_heads, n_kv_heads, d_ff)
        return cls(vocab_size=vocab_size, d_model=d_model, context=context, layers=(sizes,) * n_layers, **choices)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.layers)

    @property
    def longest_context(self) -> int | None:
        """The most positions that the model can be opened with; None: any number."""
        return self.context

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values.

        Returns
        -------
        dict
            What `from_json` makes an equal record from.
        """
        return {field.name: _json(getattr(self, field.name)) for field in dataclasses.fields(self)}

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
            raise ConfigError(
                "config_invalid", f"{cls.__name__} has no field {strange[0]!r}; it has {', '.join(sorted(known))}"
            )
        try:
            records = {
                name: tuple(_record(kind, item) for item in values[name])
                for name, kind in cls.records.items()
                if name in values
            }
            plain: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
            }
            return cls(**{**plain, **records})
        except (TypeError, AttributeError, OverflowError) as error:
            raise ConfigError("config_invalid", f"{cls.__name__} cannot be made from these fields: {error}") from error

    def _check_layers(self, name: str) -> None:
        """Refuse impossible sizes of blocks."""
        layers = getattr(self, name)
        if not layers:
            raise ConfigError("config_invalid", f"{name} must hold at least one LayerSizes; it is empty")
        for i, sizes in enumerate(layers):
            for field in ("n_heads", "n_kv_heads", "d_head", "d_ff"):
                _positive(f"{name}[{i}].{field}", getattr(sizes, field))
            if sizes.d_head > MOST_HEAD:
                raise ConfigError("config_invalid", f"{name}[{i}].d_head is {sizes.d_head}, more than {MOST_HEAD}")
            if sizes.window is not None:
                _positive(f"{name}[{i}].window", sizes.window)
            if sizes.rotary is not None and (type(sizes.rotary) is not int or sizes.rotary < 0):
                raise ConfigError("config_invalid", f"{name}[{i}].rotary must be a number, not {sizes.rotary!r}")
            if sizes.n_heads % sizes.n_kv_heads:
                raise ConfigError(
                    "config_invalid",
                    f"{name}[{i}]: n_heads ({sizes.n_heads}) must be a multiple of n_kv_heads ({sizes.n_kv_heads})",
                )

    def _check_choice(self, name: str, allowed: tuple[str, ...]) -> None:
        """Refuse what is not one of the allowed names."""
        value = getattr(self, name)
        if value not in allowed:
            raise ConfigError("config_invalid", f"{name} must be {listed(allowed)}, not {value!r}")

    def _check_rate(self, name: str) -> None:
        """Refuse what is no probability below 1."""
        value = getattr(self, name)
        if not 0.0 <= value < 1.0:
            raise ConfigError("config_invalid", f"{name} must lie in [0, 1), not {value}")

    def _check_positive(self, name: str) -> None:
        """Refuse a number that is not positive."""
        value = getattr(self, name)
        if value <= 0:
            raise ConfigError("config_invalid", f"{name} must be a positive number, not {value}")


def _record(kind: Callable[..., Any], values: dict[str, Any]) -> Any:
    """Make a record of a Config's field out of JSON values."""
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _json(value: Any) -> Any:
    """Convert a field to JSON values; a record may know itself how it is written."""
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    if hasattr(value, "to_json"):
        return value.to_json()
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def _finite(name: str, value: object) -> None:
    if type(value) is bool or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError("config_invalid", f"{name} must be a finite number, not {value!r}")


def _positive(name: str, value: object) -> None:
    if type(value) is not int or not 0 < value < 2**31:
        raise ConfigError("config_invalid", f"{name} must be a whole number from 1 to 2147483647, not {value!r}")
