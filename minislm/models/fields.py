"""Fields: the values of a published config.json, each checked as it is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from minislm.errors import ConfigError, UnsupportedError, clipped

NEEDED: Any = object()  # in place of a default: the field must be there
MOST_BLOCKS = 10_000
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

    def blocks(self, name: str, default: Any = NEEDED) -> int:
        """Read how many blocks a stack has; as `whole`.

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

        Raises
        ------
        ConfigError
            Code ``config_invalid``: more than `MOST_BLOCKS`, whose Config alone would fill the memory.
        """
        number: int = self.whole(name, default)
        if number > MOST_BLOCKS:
            raise ConfigError("config_invalid", f"{self.origin}: {name} is {clipped(number)}, more than {MOST_BLOCKS}")
        return number

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
        value = self._read(name, default, _is_number, "a number")
        return float(value) if _is_number(value) else value

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
        value = self._read(name, default, lambda value: _is_number(value) and value > 0, "a number above 0")
        return float(value) if _is_number(value) else value

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
                "unsupported_config", f"{self.origin}: {name} is {clipped(value)}; minislm runs {sorted(known)}"
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

    def _read(self, name: str, default: Any, fits: Any, kind: str) -> Any:
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
