"""Fields: the values of a published config.json, each checked as it is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from minislm.config import MOST_HEAD, LayerSizes
from minislm.errors import ConfigError, UnsupportedError, clipped, listed

NEEDED: Any = object()  # in place of a default: the field must be there
MOST_BLOCKS = 10_000
MOST = 2**31 - 1
T = TypeVar("T")


class Fields:
    """Reads config.json.

    Parameters
    ----------
    values : mapping
        The values, JSON as it came.
    origin : str
        The file in errors.
    """

    def __init__(self, values: Mapping[str, Any], origin: str = "config.json") -> None:
        self.values = values
        self.origin = origin

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def whole(self, name: str, default: Any = NEEDED) -> Any:
        """Read a whole number.

        Parameters
        ----------
        name : str
            The field.
        default : object
            What a missing one, or null, means; left out: it must be there.

        Returns
        -------
        int, or the default
            The number, at least 0.

        Raises
        ------
        ConfigError
            Code ``config_invalid``: missing, or no whole number.
        """
        return self._read(name, default, lambda value: type(value) is int and value >= 0, "a whole number from 0")

    def size(self, name: str, default: Any = NEEDED, *, most: int = MOST) -> Any:
        """Read a size, a whole number from 1; as `whole`.

        Parameters
        ----------
        name : str
            The field.
        default : object
            What a missing one means.
        most : int
            The largest that can be.

        Returns
        -------
        int, or the default
            The number.

        Raises
        ------
        ConfigError
            Code ``config_invalid``: out of range.
        """
        return self._read(
            name, default, lambda value: type(value) is int and 1 <= value <= most, f"a whole number from 1 to {most}"
        )

    def blocks(self, name: str, default: Any = NEEDED) -> int:
        """Read how many blocks a stack has: at most `MOST_BLOCKS`, for more would fill the memory; as `size`.

        Parameters
        ----------
        name : str
            The field.
        default : int
            What a missing one means.

        Returns
        -------
        int
            The number.
        """
        number: int = self.size(name, default, most=MOST_BLOCKS)
        return number

    def layer_sizes(self, width: str, n_heads: str, d_ff: int | None, *, default: Any = NEEDED) -> LayerSizes:
        """Read the sizes of a block whose heads share a width out among them.

        Parameters
        ----------
        width, n_heads : str
            The fields of the width and of the number of heads.
        d_ff : int or None
            Feed-forward width; None: four times the width.
        default : int
            What a missing width means.

        Returns
        -------
        LayerSizes
            As many heads of keys and values as of queries.

        Raises
        ------
        ConfigError
            Code ``config_invalid``: a width that the heads do not share out evenly, or a head above `MOST_HEAD`.
        """
        d_model, number = self.size(width, default), self.size(n_heads)
        self.check_multiple(width, n_heads, d_model, number)
        if d_model // number > MOST_HEAD:
            told = f"{self.origin}: {width} ({d_model}) and {n_heads} ({number}) make heads wider than {MOST_HEAD}"
            raise ConfigError("config_invalid", told)
        return LayerSizes.of_width(d_model, number, d_ff=d_ff)

    def check_multiple(self, name: str, of: str, value: int, divisor: int) -> None:
        """Refuse a size that is no multiple of another.

        Parameters
        ----------
        name, of : str
            Their fields.
        value, divisor : int
            Their values.

        Raises
        ------
        ConfigError
            Code ``config_invalid``.
        """
        if value % divisor:
            raise ConfigError(
                "config_invalid", f"{self.origin}: {name} ({value}) must be a multiple of {of} ({divisor})"
            )

    def rate(self, name: str, default: Any = NEEDED) -> Any:
        """Read a probability below 1; as `whole`.

        Parameters
        ----------
        name : str
            The field.
        default : object
            What a missing one means.

        Returns
        -------
        float, or the default
            The number.
        """
        return self._number(name, default, lambda value: 0 <= value < 1, "a number in [0, 1)")

    def number(self, name: str, default: Any = NEEDED) -> Any:
        """Read a finite number; as `whole`.

        Parameters
        ----------
        name : str
            The field.
        default : object
            What a missing one means.

        Returns
        -------
        float, or the default
            The number.
        """
        return self._number(name, default, lambda value: True, "a number")

    def positive(self, name: str, default: Any = NEEDED) -> Any:
        """Read a finite number above 0; as `whole`.

        Parameters
        ----------
        name : str
            The field.
        default : object
            What a missing one means.

        Returns
        -------
        float, or the default
            The number.
        """
        return self._number(name, default, lambda value: value > 0, "a number above 0")

    def flag(self, name: str, default: Any = NEEDED) -> Any:
        """Read true or false; as `whole`.

        Parameters
        ----------
        name : str
            The field.
        default : object
            What a missing one means.

        Returns
        -------
        bool, or the default
            The value.
        """
        return self._read(name, default, lambda value: type(value) is bool, "true or false")

    def list(self, name: str, default: Any = NEEDED) -> Any:
        """Read a list; as `whole`.

        Parameters
        ----------
        name : str
            The field.
        default : object
            What a missing one means.

        Returns
        -------
        list, or the default
            The values, unchecked.
        """
        return self._read(name, default, lambda value: isinstance(value, list), "a list")

    def choice(self, name: str, known: Mapping[str, T], default: Any = NEEDED) -> T:
        """Read a name and translate it.

        Parameters
        ----------
        name : str
            The field.
        known : mapping
            From the names that we can run to what they mean here.
        default : str
            The name that a missing one stands for.

        Returns
        -------
        object
            The meaning.

        Raises
        ------
        UnsupportedError
            Code ``unsupported_config``: another name.
        """
        value = self._read(name, default, lambda value: isinstance(value, str), "a name")
        if value not in known:
            raise UnsupportedError(
                "unsupported_config", f"{self.origin}: {name} is {clipped(value)}; minislm runs {listed(sorted(known))}"
            )
        return known[value]

    def record(self, name: str) -> Fields | None:
        """Read an object.

        Parameters
        ----------
        name : str
            The field.

        Returns
        -------
        Fields or None
            The object's own; None: it is missing, null or empty.
        """
        value = self._read(name, None, lambda value: isinstance(value, dict), "an object")
        return Fields(value, f"{self.origin}: {name}") if value else None

    def expect(self, name: str, *expected: Any) -> None:
        """Refuse a field with a value that the architecture's file does not know.

        Parameters
        ----------
        name : str
            The field.
        *expected : object
            Values that are well; the first is what a missing one stands for.

        Raises
        ------
        UnsupportedError
            Code ``unsupported_config``.
        """
        value = self.values.get(name, expected[0])
        if value not in expected and value is not None:
            raise UnsupportedError(
                "unsupported_config",
                f"{self.origin}: {name} is {clipped(value)}; minislm runs this architecture with {expected[0]!r}",
            )

    def _number(self, name: str, default: Any, fits: Callable[[float], bool], kind: str) -> Any:
        """Read a finite number that fits, as a float; a whole one may stand in its place."""
        value = self._read(name, default, lambda value: _is_number(value) and fits(value), kind)
        return float(value) if _is_number(value) else value

    def _read(self, name: str, default: Any, fits: Callable[[Any], bool], kind: str) -> Any:
        """Return a value that fits; the default where it is missing or null."""
        value = self.values.get(name)
        if value is None:
            if default is NEEDED:
                raise ConfigError("config_invalid", f"{self.origin} lacks {name}, {kind}")
            return default
        if not fits(value):
            raise ConfigError("config_invalid", f"{self.origin}: {name} must be {kind}, not {clipped(value)}")
        return value


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
