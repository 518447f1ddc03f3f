"""What a run will cost in memory and time, told before it starts: by counting, and by a few steps on a copy."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.layers.base import Grads, Tape
from minislm.training.data import Batch, TrainingData
from minislm.training.run import Run
from minislm.training.settings import TrainSettings

LOOKED_AT = 100  # batches among which the largest is sought
TIMED = 3  # steps; one more comes first, to load what is loaded once


@dataclass(frozen=True)
class Estimate:
    """The cost of a run.

    Parameters
    ----------
    parameters, trained_parameters : int
        Of the model, and how many of them are trained.
    weights_bytes : int
        Of the model as it is stored, and of the float32 copy of what is trained.
    gradients_bytes, moments_bytes : int
        Of the gradients, and of what AdamW keeps; of the best values too, where the settings have patience.
    activations_bytes : int
        What forward keeps for backward, for the largest batch looked at.
    steps : int
        Optimizer steps.
    tokens_per_step : float
        On average.
    step_s : float
        Seconds of a step: measured.
    evaluation_s : float
        Seconds of an evaluation: measured on one of its batches; 0 without.
    evaluations : int
        How many there will be.
    """

    parameters: int
    trained_parameters: int
    weights_bytes: int
    gradients_bytes: int
    moments_bytes: int
    activations_bytes: int
    steps: int
    tokens_per_step: float
    step_s: float
    evaluation_s: float
    evaluations: int

    @property
    def total_bytes(self) -> int:
        """All of the memory above."""
        return self.weights_bytes + self.gradients_bytes + self.moments_bytes + self.activations_bytes

    @property
    def total_s(self) -> float:
        """Seconds of the whole run, if it is not stopped early."""
        return self.steps * self.step_s + self.evaluations * self.evaluation_s

    def to_json(self) -> dict[str, Any]:
        """Write the record as JSON values.

        Returns
        -------
        dict
            Its fields and sums.
        """
        return {**dataclasses.asdict(self), "total_bytes": self.total_bytes, "total_s": self.total_s}


def estimate(model: Any, data: TrainingData, settings: TrainSettings) -> Estimate:
    """Count and measure what a run will cost; nothing is kept of the steps that are taken for it.

    Parameters
    ----------
    model : Model
        Where training starts; it stays as it is.
    data : TrainingData
        What to learn from.
    settings : TrainSettings
        How.

    Returns
    -------
    Estimate
        The cost.

    Raises
    ------
    DataError, ConfigError, UsageError, TrainingError
        As `fit`: what does not fit together is refused here too.
    """
    steps = max(settings.steps, 2 + TIMED)  # so that none of these is the last one, which is evaluated
    trial = dataclasses.replace(settings, steps=steps, eval_every=steps if settings.eval_every else 0)
    run = Run(model, data, trial, data.objective, None)
    run.advance()
    tokens_before, began_s = run.progress.tokens, time.perf_counter()
    for _ in range(TIMED):
        run.advance()
    elapsed_s, n_tokens = time.perf_counter() - began_s, run.progress.tokens - tokens_before
    tokens_per_step = data.train.tokens_per_batch(settings.batch_size) * settings.accumulate
    every = settings.eval_every or settings.steps
    flat = run.flat
    return Estimate(
        parameters=model.n_parameters,
        trained_parameters=sum(array.size for array in flat.views.values()),
        weights_bytes=model.nbytes + flat.values.nbytes,
        gradients_bytes=flat.grads.nbytes,
        moments_bytes=flat.m.nbytes + flat.v.nbytes + (0 if run.best is None else run.best.nbytes),
        activations_bytes=_activations_bytes(run, _largest(data, settings)),
        steps=settings.steps,
        tokens_per_step=tokens_per_step,
        step_s=elapsed_s / n_tokens * tokens_per_step,
        evaluation_s=_evaluation_s(run.model, data, settings),
        evaluations=0 if data.validation is None else -(-settings.steps // every),
    )


def _largest(data: TrainingData, settings: TrainSettings) -> Batch:
    """Return the batch with the most tokens among the first ones, padding included."""
    batches = (data.train.batch(i, settings.batch_size, seed=settings.seed) for i in range(LOOKED_AT))
    return max(batches, key=lambda batch: batch.ids_BT.size + (0 if batch.source_BS is None else batch.source_BS.size))


def _activations_bytes(run: Run, batch: Batch) -> int:
    """Run forward, and add up what it keeps besides the model's own arrays."""
    tape = Tape()
    run.objective.loss(run.model, batch, batch.context(dropout=(0, 0, 0)), tape, Grads())
    own = {id(_owner(array)) for array in run.model.arrays().values()}
    kept = {id(owner): owner.nbytes for owner in map(_owner, _arrays(list(tape))) if id(owner) not in own}
    return sum(kept.values())


def _owner(array: np.ndarray) -> np.ndarray:
    """Return the array whose memory this one is a view of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _arrays(saved: Any) -> Iterator[np.ndarray]:
    """Yield all arrays inside of what layers saved."""
    if isinstance(saved, np.ndarray):
        yield saved
    elif isinstance(saved, dict):
        yield from _arrays(list(saved.values()))
    elif isinstance(saved, tuple | list):
        for item in saved:
            yield from _arrays(item)


def _evaluation_s(model: Any, data: TrainingData, settings: TrainSettings) -> float:
    """Time one batch of an evaluation, and count them."""
    if data.validation is None:
        return 0.0
    n_batches = -(-data.validation.n_examples // settings.batch_size)
    first = next(iter(data.validation.evaluation(settings.batch_size, 1)))
    began_s = time.perf_counter()
    data.objective.judge(model, [first])
    return (time.perf_counter() - began_s) * min(n_batches, settings.eval_batches or n_batches)
