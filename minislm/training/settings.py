"""TrainSettings: everything that decides how a training run goes, as one frozen record."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from minislm.errors import ConfigError

SCHEDULES = ("cosine", "linear", "constant")

# Fields that change what is kept on disk, but not one bit of the run: a resumed run may choose them anew.
BOOKKEEPING = ("checkpoint_every", "keep_checkpoints")


@dataclass(frozen=True)
class TrainSettings:
    """How a model is trained. The rate of dropout is not here: it belongs to the model's Config.

    Parameters
    ----------
    steps : int
        Optimizer steps; `for_tokens` counts them from a number of tokens.
    batch_size : int
        Examples in one forward pass.
    accumulate : int
        Forward passes whose gradients are averaged for one optimizer step.
    learning_rate : float
        The highest rate, reached at the end of the warm-up.
    min_learning_rate_ratio : float
        The rate at the end of the schedule, as a part of `learning_rate`.
    warmup_steps : int
        Steps over which the rate rises linearly.
    schedule : {"cosine", "linear", "constant"}
        How the rate falls after the warm-up.
    beta1, beta2, eps : float
        Constants of AdamW.
    weight_decay : float
        Decoupled decay of matrices; vectors and quantizer scales have none.
    clip : float
        Largest norm of the whole gradient; 0: no clipping.
    eval_every : int
        Steps between evaluations on the validation examples; 0: only after the last step.
    eval_batches : int
        Batches of an evaluation, spread over the validation examples; 0: all of them.
    patience : int
        Stop after so many evaluations in a row without a new best, and return the best model; 0: never, and return
        the last model.
    checkpoint_every : int
        Steps between checkpoints; 0: only at the end or when interrupted.
    keep_checkpoints : int
        How many of the newest checkpoints stay.
    seed : int
        Decides the order of the data and what dropout drops.
    freeze : str
        Which arrays stay as they are: `fnmatch` patterns over full array names, separated by commas; empty: none.
    """

    steps: int = 1000
    batch_size: int = 8
    accumulate: int = 1
    learning_rate: float = 1e-3
    min_learning_rate_ratio: float = 0.1
    warmup_steps: int = 0
    schedule: str = "cosine"
    beta1: float = 0.9
    beta2: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0
    eval_every: int = 0
    eval_batches: int = 0
    patience: int = 0
    checkpoint_every: int = 0
    keep_checkpoints: int = 2
    seed: int = 0
    freeze: str = ""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            _check_type(field.name, getattr(self, field.name), hints[field.name])
        for name in ("steps", "batch_size", "accumulate", "keep_checkpoints"):
            _check(name, getattr(self, name), "at least 1", lambda value: value >= 1)
        for name in ("warmup_steps", "eval_every", "eval_batches", "patience", "checkpoint_every"):
            _check(name, getattr(self, name), "at least 0", lambda value: value >= 0)
        for name in ("learning_rate", "eps"):
            _check(name, getattr(self, name), "more than 0", lambda value: value > 0)
        for name in ("weight_decay", "clip"):
            _check(name, getattr(self, name), "at least 0", lambda value: value >= 0)
        for name in ("beta1", "beta2"):
            _check(name, getattr(self, name), "at least 0 and less than 1", lambda value: 0 <= value < 1)
        _check("min_learning_rate_ratio", self.min_learning_rate_ratio, "from 0 to 1", lambda value: 0 <= value <= 1)
        _check("seed", self.seed, "from 0 to 2**63 - 1", lambda value: 0 <= value < 2**63)
        _check("schedule", self.schedule, f"one of {', '.join(SCHEDULES)}", lambda value: value in SCHEDULES)

    def for_tokens(self, tokens: int, context: int) -> Self:
        """Return the settings with as many steps as a budget of tokens asks for.

        Parameters
        ----------
        tokens : int
            Tokens to train on, repeated ones counted each time; rounded up to whole steps.
        context : int
            Tokens in a window.

        Returns
        -------
        TrainSettings
            With `steps` changed.
        """
        return dataclasses.replace(self, steps=max(1, -(-tokens // self.tokens_per_step(context))))

    def tokens_per_step(self, context: int) -> int:
        """Count the tokens of one optimizer step.

        Parameters
        ----------
        context : int
            Tokens in a window.

        Returns
        -------
        int
            Windows of all its forward passes, times `context`.
        """
        return self.batch_size * self.accumulate * context

    def to_json(self) -> dict[str, Any]:
        """Write the record as JSON values.

        Returns
        -------
        dict
            Field names to values, from which `from_json` makes an equal record.
        """
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Make settings from `to_json`'s dictionary, or from a part of it.

        Parameters
        ----------
        values : mapping
            Field names to JSON values; fields that are missing have their defaults.

        Returns
        -------
        TrainSettings
            The record.

        Raises
        ------
        ConfigError
            Code ``config_invalid``: a field is unknown, of the wrong type or out of range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        if strange := sorted(set(values) - set(known)):
            raise ConfigError("config_invalid", f"training has no setting {strange[0]!r}; it has {', '.join(known)}")
        return cls(**values)


def _check_type(name: str, value: object, hint: type) -> None:
    """Refuse a value of the wrong type or a float that is no finite number; whole numbers pass for floats."""
    wanted = {int: (int,), float: (int, float), str: (str,)}[hint]
    if isinstance(value, bool) or not isinstance(value, wanted):
        words = {int: "a whole number", float: "a number", str: "text"}[hint]
        raise ConfigError("config_invalid", f"training setting {name} must be {words}, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError("config_invalid", f"training setting {name} must be a finite number, not {value}")


def _check(name: str, value: Any, words: str, holds: Callable[[Any], bool]) -> None:
    if not holds(value):
        raise ConfigError("config_invalid", f"training setting {name} must be {words}, not {value!r}")
