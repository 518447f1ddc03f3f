"""GenerationSettings: how new tokens are chosen and when generation stops."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minislm.errors import UsageError, clipped
from minislm.ops.packed import STORED

RANGES = {  # from the first to before the second
    "max_new_tokens": (0, 2**31),
    "top_k": (0, 2**31),
    "seed": (0, 2**64),
    "n_beams": (1, 2**10),
    "min_new_tokens": (0, 2**31),
    "no_repeat_ngram": (0, 2**31),
}


@dataclass(frozen=True)
class GenerationSettings:
    """A checked set of options; every default but the temperature leaves the model's distribution as it is.

    Parameters
    ----------
    max_new_tokens : int
        Stop after so many new tokens; 0 generates nothing.
    temperature : float
        Divides the logits; 0 always takes the most likely token.
    top_k : int
        Keep the k most likely tokens; 0 keeps all.
    top_p : float
        Keep the most likely tokens that together reach this probability, in (0, 1]; 1 keeps all.
    min_p : float
        Keep tokens at least this fraction as likely as the most likely one, in [0, 1]; 0 keeps all.
    repetition_penalty : float
        Above 0; more than 1 makes tokens of the prompt and of the text so far less likely.
    stop : sequence of str
        Stop where one of these, none empty, appears in the new text; the text ends before it.
    ignore_eos : bool
        Whether to go on after the end-of-text token.
    seed : int
        The choice is a function of the seed, the logits and the number of new tokens so far, in 0..2**64 - 1.
    n_beams : int
        Continuations that beam search keeps side by side; 1: no search. More than 1 needs temperature 0 and no `stop`.
    length_penalty : float
        Beam search divides the log-probability of a finished text by its length to this power: the more, the longer the
        text; 0 ranks by the log-probability itself.
    early_stopping : bool or "never"
        Whether beam search ends as soon as there are enough finished texts. False: when none in progress would win at
        its present length; "never": when none would at any length.
    renormalize : bool
        Whether beam search counts probabilities among the tokens that are allowed, rather than among all.
    min_new_tokens : int
        A text does not end before so many new tokens.
    no_repeat_ngram : int
        No sequence of so many tokens comes twice; 0: it may.
    start_id : int, optional
        Token with which the decoder of an encoder-decoder begins; None: the tokenizer's end-of-text token.
    eos_ids : sequence of int
        Tokens that end a text; empty: the tokenizer's end-of-text token.
    first_id, last_id : int, optional
        Token that must come first, and one that must come last where the length ends a text.
    banned_ids : sequence of int
        Tokens that never come.
    cache : {"float32", "float16", "int8"}
        How the keys and values of tokens are kept, as `KVCache.create` takes it: half the memory or a quarter, for
        errors of about 2**-11 or 2**-8 of each. Over int8, attention runs in whole numbers, faster than over floats
        (`ops.packed.attention_packed_int8`).
    """

    max_new_tokens: int = 128
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: Sequence[str] = ()
    ignore_eos: bool = False
    seed: int = 0
    n_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    renormalize: bool = False
    min_new_tokens: int = 0
    no_repeat_ngram: int = 0
    start_id: int | None = None
    eos_ids: Sequence[int] = ()
    first_id: int | None = None
    last_id: int | None = None
    banned_ids: Sequence[int] = ()
    cache: str = "float32"

    def __post_init__(self) -> None:
        if isinstance(self.stop, str) or not isinstance(self.stop, Sequence):
            raise _bad("stop", self.stop, "a list of strings")
        object.__setattr__(self, "stop", tuple(self.stop))
        if not all(isinstance(text, str) and text for text in self.stop):
            raise _bad("stop", self.stop, "a list of strings that are not empty")
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value < high:
                raise _bad(name, value, f"a whole number in {low}..{high - 1}")
        self._check_ids()
        if self.early_stopping not in (True, False, "never"):
            raise _bad("early_stopping", self.early_stopping, 'true, false or "never"')
        if self.cache not in STORED:
            raise _bad("cache", self.cache, f"one of {', '.join(STORED)}")
        if type(self.renormalize) is not bool:
            raise _bad("renormalize", self.renormalize, "true or false")
        for name, allowed, fits in (
            ("temperature", "a number >= 0", self._number("temperature") >= 0),
            ("top_p", "a number in (0, 1]", 0 < self._number("top_p") <= 1),
            ("min_p", "a number in [0, 1]", 0 <= self._number("min_p") <= 1),
            ("repetition_penalty", "a number > 0", self._number("repetition_penalty") > 0),
            ("length_penalty", "a number", not math.isnan(self._number("length_penalty"))),
        ):
            if not fits:
                raise _bad(name, getattr(self, name), allowed)
        needed = {"temperature": "0", "stop": "empty"}
        if self.n_beams > 1 and (bad := [name for name in needed if getattr(self, name)]):
            told = " and ".join(f"{name} must be {needed[name]}, not {getattr(self, name)!r}" for name in bad)
            raise UsageError(
                "bad_generation_setting",
                f"n_beams {self.n_beams} searches for the likeliest whole text: {told}; or set n_beams to 1",
            )

    def _check_ids(self) -> None:
        """Refuse what are no token ids."""
        for name in ("eos_ids", "banned_ids"):
            value = getattr(self, name)
            if not isinstance(value, Sequence) or not all(map(is_id, value)):
                raise _bad(name, value, "a list of token ids")
            object.__setattr__(self, name, tuple(value))
        for name in ("start_id", "first_id", "last_id"):
            if not (getattr(self, name) is None or is_id(getattr(self, name))):
                raise _bad(name, getattr(self, name), "a token id")

    def _number(self, name: str) -> float:
        """Return a field if it is a finite number, else a value that fits no range."""
        value = getattr(self, name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return float(value) if is_number else math.nan

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON values.

        Returns
        -------
        dict
            From which `from_json` makes an equal record.
        """
        lists = {name: list(getattr(self, name)) for name in ("stop", "eos_ids", "banned_ids")}
        return {**dataclasses.asdict(self), **lists}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> GenerationSettings:
        """Make settings from `to_json`'s dictionary or any part of it.

        Parameters
        ----------
        values : mapping
            Names of fields to values.

        Returns
        -------
        GenerationSettings
            With defaults for what is missing.

        Raises
        ------
        UsageError
            Code ``bad_generation_setting``: an unknown name or a value out of range.
        """
        return cls().replaced(**values)

    def replaced(self, **changes: Any) -> GenerationSettings:
        """Return the settings with some options changed.

        Parameters
        ----------
        **changes : Any
            Names of fields to values.

        Returns
        -------
        GenerationSettings
            The changed record.

        Raises
        ------
        UsageError
            Code ``bad_generation_setting``: an unknown name or a value out of range.
        """
        known = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise UsageError("bad_generation_setting", f"no generation option {name!r}; known: {', '.join(known)}")
        return dataclasses.replace(self, **changes)


def is_id(value: object) -> bool:
    """Tell whether a value can be a token id.

    Parameters
    ----------
    value : object
        Anything.

    Returns
    -------
    bool
        Whether it is a whole number from 0, as large as ids are.
    """
    return type(value) is int and 0 <= value < 2**31


def _bad(name: str, value: object, allowed: str) -> UsageError:
    return UsageError("bad_generation_setting", f"{name} must be {allowed}, not {clipped(value)}")
