"""Rotary: how positions turn queries and keys, and how models stretch that to more positions than they learned.

A scaling changes the frequencies once, when a model is made; what it does never depends on how long a text is. Models
whose reference switches tables by the length of a text (LongRoPE, dynamic NTK) take theirs by the context that they are
opened with.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minislm.errors import ConfigError, unknown


@dataclass(frozen=True)
class Scaling(ABC):
    """Frequencies for more positions than a model learned."""

    kind: ClassVar[str]

    @abstractmethod
    def scaled(self, f_F: np.ndarray, rotary: Rotary, context: int) -> tuple[np.ndarray, float]:
        """Change the frequencies.

        Parameters
        ----------
        f_F : ndarray of float64, (F,)
            Those of `plain`.
        rotary : Rotary
            Whose scaling this is.
        context : int
            Positions that the model is opened with.

        Returns
        -------
        frequencies_F : ndarray of float64, (F,)
            The changed ones.
        factor : float
            Multiplies the turned queries and keys.
        """


@dataclass(frozen=True)
class Rotary:
    """How positions rotate queries and keys (`ops.rotary`).

    Parameters
    ----------
    base : float
        The wavelengths run from 2 pi to 2 pi times this.
    width : int
        Rotated part of a head, even; the rest passes through.
    interleaved : bool
        Whether neighbours (2i, 2i + 1) are paired, rather than halves (i, i + width / 2).
    scaling : Linear, DynamicNTK, Llama3, Yarn or LongRope, optional
        Changes the frequencies; None: nothing does. A mapping with its ``kind`` and fields makes one.

    Raises
    ------
    ConfigError
        Code ``config_invalid``: an odd width, or a base that is no positive number.
    """

    base: float
    width: int
    interleaved: bool = False
    scaling: Scaling | None = None

    def __post_init__(self) -> None:
        given: Any = self.scaling  # a mapping, where a file said it
        if isinstance(given, Mapping):
            object.__setattr__(self, "scaling", scaling_of(given))
        if not (math.isfinite(self.base) and self.base > 0):
            raise ConfigError("config_invalid", f"the base of rotary positions must be positive, not {self.base}")
        if type(self.width) is not int or self.width < 2 or self.width % 2:
            raise ConfigError("config_invalid", f"the width of rotary positions must be even, not {self.width!r}")

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values.

        Returns
        -------
        dict
            Whose entries, as arguments, make an equal record.
        """
        scaling = None if self.scaling is None else {"kind": self.scaling.kind, **vars(self.scaling)}
        return {**vars(self), "scaling": scaling}

    def turn(self, context: int) -> Turn:
        """Compute what `ops.rotary` takes.

        Parameters
        ----------
        context : int
            Positions that the model is opened with.

        Returns
        -------
        Turn
            Frequencies, pairing and factor.
        """
        f_F, factor = plain(self.base, self.width), 1.0
        if self.scaling is not None:
            f_F, factor = self.scaling.scaled(f_F, self, context)
        return Turn(tuple(f_F.tolist()), self.interleaved, factor)


@dataclass(frozen=True)
class Turn:
    """The arguments of `ops.rotary`, as a `Rotary` gives them.

    Parameters
    ----------
    frequencies : tuple of float
        By how much each pair turns from one position to the next.
    interleaved : bool
        Which entries are a pair.
    factor : float
        Multiplies what is turned.
    """

    frequencies: tuple[float, ...]
    interleaved: bool = False
    factor: float = 1.0


def plain(base: float, width: int) -> np.ndarray:
    """Compute the frequencies without a scaling (Su et al., 2021, section 3.2.2).

    Parameters
    ----------
    base : float
        As of `Rotary`.
    width : int
        As of `Rotary`.

    Returns
    -------
    ndarray of float64, (width / 2,)
        From 1 down to nearly 1 / base.
    """
    f_F: np.ndarray = base ** (-np.arange(0, width, 2) / width)
    return f_F


@dataclass(frozen=True)
class Linear(Scaling):
    """All positions come closer together (Chen et al., 2023, arXiv 2306.15595).

    Parameters
    ----------
    factor : float
        Divides every frequency.
    """

    kind: ClassVar[str] = "linear"

    factor: float

    def scaled(self, f_F: np.ndarray, rotary: Rotary, context: int) -> tuple[np.ndarray, float]:
        """Divide."""
        return f_F / self.factor, 1.0


@dataclass(frozen=True)
class DynamicNTK(Scaling):
    """The base grows with the context, so that fast pairs keep their speed (bloc97, 2023).

    Parameters
    ----------
    factor : float
        By how much the base grows with each further original context.
    original_context : int
        Positions that the model learned.
    """

    kind: ClassVar[str] = "dynamic"

    factor: float
    original_context: int

    def scaled(self, f_F: np.ndarray, rotary: Rotary, context: int) -> tuple[np.ndarray, float]:
        """Compute the frequencies of the grown base."""
        longer = max(context, self.original_context) / self.original_context
        grown = (self.factor * longer - (self.factor - 1)) ** (rotary.width / (rotary.width - 2))
        return plain(rotary.base * grown, rotary.width), 1.0


@dataclass(frozen=True)
class Llama3(Scaling):
    """Slow pairs are divided, fast ones kept, those between blended (Llama 3.1, 2024, arXiv 2407.21783, section 3.4).

    Parameters
    ----------
    factor : float
        Divides the slow frequencies.
    low_frequency_factor, high_frequency_factor : float
        Pairs that turn less often than the first over the original context are slow; more often than the second, fast.
    original_context : int
        Positions that the model learned first.
    """

    kind: ClassVar[str] = "llama3"

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context: int

    def scaled(self, f_F: np.ndarray, rotary: Rotary, context: int) -> tuple[np.ndarray, float]:
        """Blend by the number of turns."""
        turns_F = self.original_context * f_F / (2 * math.pi)
        kept_F = (turns_F - self.low_frequency_factor) / (self.high_frequency_factor - self.low_frequency_factor)
        return _blended(f_F / self.factor, f_F, kept_F), 1.0


@dataclass(frozen=True)
class Yarn(Scaling):
    """As `Llama3` with a ramp over pairs, and scores made sharper (Peng et al., 2023, arXiv 2309.00071).

    Parameters
    ----------
    factor : float
        Divides the slow frequencies.
    original_context : int
        Positions that the model learned.
    beta_fast, beta_slow : float
        Pairs that turn more often than the first are kept; less often than the second, divided.
    attention_factor : float, optional
        Multiplies the turned queries and keys; None: 0.1 ln(factor) + 1, equation 22.
    whole : bool
        Whether the ends of the ramp are rounded to whole pairs.
    """

    kind: ClassVar[str] = "yarn"

    factor: float
    original_context: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    whole: bool = True

    def scaled(self, f_F: np.ndarray, rotary: Rotary, context: int) -> tuple[np.ndarray, float]:
        """Blend along the pairs."""

        def pair(turns: float) -> float:  # the pair that turns so often over the original context
            wave = self.original_context / (turns * 2 * math.pi)
            return rotary.width * math.log(wave) / (2 * math.log(rotary.base))

        low, high = pair(self.beta_fast), pair(self.beta_slow)
        if self.whole:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, rotary.width - 1)
        high += 0.001 if high == low else 0
        divided_F = (np.arange(len(f_F)) - low) / (high - low)
        usual = 0.1 * math.log(self.factor) + 1 if self.factor > 1 else 1.0
        factor = usual if self.attention_factor is None else self.attention_factor
        return _blended(f_F / self.factor, f_F, 1 - divided_F), factor


@dataclass(frozen=True)
class LongRope(Scaling):
    """Two searched tables, for short and for long contexts (Ding et al., 2024, arXiv 2402.13753).

    Parameters
    ----------
    short_factors, long_factors : tuple of float
        Divide the frequencies, one for each pair; the second ones where the context is longer than the original.
    original_context : int
        Positions that the model learned first.
    longest_context : int
        Positions that the long table serves.
    attention_factor : float
        Multiplies the turned queries and keys.
    """

    kind: ClassVar[str] = "longrope"

    short_factors: tuple[float, ...]
    long_factors: tuple[float, ...]
    original_context: int
    longest_context: int
    attention_factor: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "short_factors", tuple(self.short_factors))
        object.__setattr__(self, "long_factors", tuple(self.long_factors))

    def scaled(self, f_F: np.ndarray, rotary: Rotary, context: int) -> tuple[np.ndarray, float]:
        """Divide by the table of the context."""
        factors = self.long_factors if context > self.original_context else self.short_factors
        if len(factors) != len(f_F):
            raise ConfigError(
                "config_invalid", f"LongRoPE needs a factor for each of {len(f_F)} pairs, and has {len(factors)}"
            )
        return f_F / np.array(factors), self.attention_factor


SCALINGS: dict[str, type[Scaling]] = {kind.kind: kind for kind in (Linear, DynamicNTK, Llama3, Yarn, LongRope)}


def scaling_of(values: Mapping[str, Any]) -> Scaling:
    """Make a scaling from JSON values.

    Parameters
    ----------
    values : mapping
        Its ``kind`` and its fields.

    Returns
    -------
    Scaling
        The record.

    Raises
    ------
    UnsupportedError
        Code ``unknown_rotary_scaling``.
    ConfigError
        Code ``config_invalid``: other fields than it has.
    """
    fields = dict(values)
    kind = str(fields.pop("kind", None))
    if kind not in SCALINGS:
        raise unknown("rotary_scaling", kind, SCALINGS)
    try:
        made: Scaling = SCALINGS[kind](**fields)
    except TypeError as error:
        raise ConfigError("config_invalid", f"the scaling {kind} cannot be made from {fields}: {error}") from error
    return made


def _blended(slow_F: np.ndarray, fast_F: np.ndarray, kept_F: np.ndarray) -> np.ndarray:
    """Go from the one to the other as `kept_F` goes from 0 to 1."""
    kept_F = np.clip(kept_F, 0, 1)
    blended_F: np.ndarray = (1 - kept_F) * slow_F + kept_F * fast_F
    return blended_F
