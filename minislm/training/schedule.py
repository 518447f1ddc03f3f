"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable

from minislm.training.settings import TrainSettings

# Part of the way from the lowest rate (0) to the highest (1), after the part `t` of the decay, 0 <= t <= 1.
_FALL: dict[str, Callable[[float], float]] = {
    "cosine": lambda t: 0.5 * (1.0 + math.cos(math.pi * t)),
    "linear": lambda t: 1.0 - t,
    "constant": lambda t: 1.0,
}


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Return the rate of one optimizer step.

    The rate rises as ``step / (warmup_steps + 1)`` over the warm-up, is highest at the step after it, and falls so that
    it would be lowest one step after the last.

    Parameters
    ----------
    step : int
        1 for the first step.
    settings : TrainSettings
        The run.

    Returns
    -------
    float
        The learning rate.

    Examples
    --------
    >>> run = TrainSettings(steps=110, warmup_steps=9, learning_rate=1.0, min_learning_rate_ratio=0.0)
    >>> [round(learning_rate(step, run), 3) for step in (1, 10, 60, 110)]
    [0.1, 1.0, 0.508, 0.0]
    """
    highest = settings.learning_rate
    if step <= settings.warmup_steps:
        return highest * step / (settings.warmup_steps + 1)
    passed = (step - 1 - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    lowest = highest * settings.min_learning_rate_ratio
    return lowest + (highest - lowest) * _FALL[settings.schedule](min(1.0, passed))
