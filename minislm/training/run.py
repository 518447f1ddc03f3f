"""Run: a training run in memory. It knows steps and evaluations, and nothing of the disk."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.errors import TrainingError, UsageError
from minislm.layers.base import Grads, Tape
from minislm.training.checkpoint import Checkpoint
from minislm.training.data import TrainingData
from minislm.training.environment import environment
from minislm.training.memory import keep_freed_memory
from minislm.training.metrics import StepRecord
from minislm.training.objective import Objective
from minislm.training.parameters import FlatParameters, first_not_finite, norm
from minislm.training.schedule import learning_rate
from minislm.training.settings import BOOKKEEPING, TrainSettings
from minislm.weights.base import Arrays, Weight, join, under

Rewrite = Callable[[int, Any], Mapping[str, Weight] | None]


@dataclass
class Progress:
    """The part of a run's state that is a handful of numbers.

    Parameters
    ----------
    step : int
        Optimizer steps done.
    tokens : int
        Tokens trained on, repeated ones counted each time.
    elapsed_s : float
        Seconds, without the time between an interruption and its resumption.
    best_loss : float, optional
        Lowest validation loss; None before the first evaluation.
    best_step : int
        Where it was found.
    since_best : int
        Evaluations after it.
    stopped : str
        Why the run has ended, ``"steps"`` or ``"patience"``; empty while it goes on.
    """

    step: int = 0
    tokens: int = 0
    elapsed_s: float = 0.0
    best_loss: float | None = None
    best_step: int = 0
    since_best: int = 0
    stopped: str = ""


class Run:
    """A run in memory: `advance` takes one step; `files`, `state` and `restore` are all that a checkpoint needs.

    Parameters
    ----------
    model : Model
        Where it starts; never written to.
    data : TrainingData
        What to learn from and be judged on.
    settings : TrainSettings
        How.
    objective : Objective
        What is made small.
    rewrite : callable, optional
        Called before each step; see `loop.fit`.

    Raises
    ------
    DataError, ConfigError, UsageError
        They do not fit together.
    """

    def __init__(
        self, model: Any, data: TrainingData, settings: TrainSettings, objective: Objective, rewrite: Rewrite | None
    ) -> None:
        _check(model, data, settings, rewrite)
        keep_freed_memory()
        self.source, self.data, self.settings = model, data, settings
        self.objective, self.rewrite = objective, rewrite
        self.flat = FlatParameters(model, settings.freeze)
        self.model = self.flat.model()
        self.best = self.flat.values.copy() if settings.patience else None
        self.progress = Progress()
        self.began_s = time.perf_counter()

    @property
    def finished(self) -> bool:
        """Whether the last step is done."""
        return bool(self.progress.stopped)

    @property
    def checkpoint_due(self) -> bool:
        """Whether the settings ask for a checkpoint after this step."""
        every = self.settings.checkpoint_every
        return self.finished or (every > 0 and self.progress.step % every == 0)

    def advance(self) -> StepRecord:
        """Take one step, and the evaluation that may be due after it.

        Returns
        -------
        StepRecord
            What happened.

        Raises
        ------
        TrainingError
            Code ``loss_not_finite``: a NaN or an infinity turned up; the message names the step and the first tensor.
        """
        progress, settings = self.progress, self.settings
        began_s = time.perf_counter()
        step, tokens_before = progress.step + 1, progress.tokens
        rate = learning_rate(step, settings)
        with np.errstate(all="ignore"):  # what overflows is found by the checks, and named
            loss, grad_norm = self._gradients(step)
            self.flat.update(step, rate, settings)
        if not math.isfinite(norm(self.flat.values)):
            raise _not_finite(step, "a parameter after it", f"parameter {first_not_finite(self.flat.views)}")
        self.model = self.flat.model()
        tokens_per_s = (progress.tokens - tokens_before) / (time.perf_counter() - began_s)
        progress.step = step
        if step == settings.steps:
            progress.stopped = "steps"
        due = self.finished or (settings.eval_every > 0 and step % settings.eval_every == 0)
        validation_loss = self._evaluate() if due else None
        progress.elapsed_s = time.perf_counter() - self.began_s
        return StepRecord(
            step=step,
            steps=settings.steps,
            loss=loss,
            learning_rate=rate,
            grad_norm=grad_norm,
            tokens=progress.tokens,
            tokens_per_s=tokens_per_s,
            elapsed_s=progress.elapsed_s,
            validation_loss=validation_loss,
        )

    def trained(self) -> Any:
        """Return the model as it is now, or the best one if the settings have patience.

        Returns
        -------
        Model
            Over arrays of its own, so that further steps do not change it.
        """
        values = self.flat.values if self.best is None else self.best
        return self.model.with_arrays(self.flat.named(values.copy()))

    def files(self) -> dict[str, Arrays]:
        """Return the arrays of a checkpoint.

        Returns
        -------
        dict of str to dict of str to ndarray
            By file name and array name: the whole model, the optimizer's moments, the best values if they are kept.
        """
        flat = self.flat
        files = {
            "model": self.model.arrays(),
            "optimizer": {**under("m", flat.named(flat.m)), **under("v", flat.named(flat.v))},
        }
        if self.best is not None:
            files["best"] = flat.named(self.best)
        return files

    def state(self) -> dict[str, Any]:
        """Return all else that a checkpoint holds.

        Returns
        -------
        dict
            JSON values.
        """
        return {
            "progress": dataclasses.asdict(self.progress),
            "weights": self.model.specs(),
            "identity": self.identity,
            "environment": environment(),
        }

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What would make this another run if it changed, as JSON values."""
        settings = {name: value for name, value in self.settings.to_json().items() if name not in BOOKKEEPING}
        examples = [e for e in (self.data.train, self.data.validation) if e is not None]
        return {
            **settings,
            "objective": _described(self.objective),
            "starting model": _digest({repr(self.source.config): np.zeros(0), **self.source.arrays()}),
            "data": _digest({f"{i} {name}": a for i, e in enumerate(examples) for name, a in e.arrays().items()}),
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Become the run that a checkpoint was made of.

        Parameters
        ----------
        checkpoint : Checkpoint
            Of a run with the same `identity`.
        """
        model = self.source.rebuilt(checkpoint.state["weights"], checkpoint.files["model"])
        self.flat = FlatParameters(model, self.settings.freeze)
        saved = [("m", self.flat.m, "optimizer"), ("v", self.flat.v, "optimizer")]
        if self.best is not None:
            saved.append(("", self.best, "best"))
        for prefix, buffer, file in saved:
            for name, view in self.flat.named(buffer).items():
                np.copyto(view, checkpoint.files[file][join(prefix, name)])
        self.model = self.flat.model()
        self.progress = Progress(**checkpoint.state["progress"])
        self.began_s = time.perf_counter() - self.progress.elapsed_s

    def _gradients(self, step: int) -> tuple[float, float]:
        """Leave the mean gradient of the step's batches in the flat buffer; return their mean loss and its norm."""
        settings, flat = self.settings, self.flat
        if self.rewrite is not None and (parts := self.rewrite(step, self.model)):
            flat.replace(parts)
            self.model = flat.model()
        flat.grads.fill(0.0)
        total = 0.0
        for i in range(settings.accumulate):
            index = (step - 1) * settings.accumulate + i
            batch = self.data.train.batch(index, settings.batch_size, seed=settings.seed)
            tape, grads = Tape(), Grads(flat.grad_views.__contains__, into=flat.grad_views)
            context = batch.context(dropout=(settings.seed, step, i))
            loss = self.objective.step(self.model, batch, context, tape, grads)
            if not math.isfinite(loss):
                raise _not_finite(step, f"the loss ({loss})", self._first_bad(tape))
            if grads.side:
                raise RuntimeError(f"no layer took the gradients that were put aside for {sorted(grads.side)}")
            total += loss
            self.progress.tokens += batch.n_tokens
        grad_norm = flat.scale_gradients(settings.accumulate, settings.clip)
        if not math.isfinite(grad_norm):
            backwards = [name for name in reversed(self.model.parameters()) if name in flat.grad_views]
            bad = first_not_finite({name: flat.grad_views[name] for name in backwards})
            raise _not_finite(step, "the gradient", f"the gradient of {bad}")
        return total / settings.accumulate, grad_norm

    def _evaluate(self) -> float | None:
        """Judge the model on the validation examples, and notice a new best or the end of patience."""
        progress, settings = self.progress, self.settings
        if self.data.validation is None:
            return None
        with np.errstate(all="ignore"):
            batches = self.data.validation.evaluation(settings.batch_size, settings.eval_batches)
            loss = self.objective.judge(self.model, batches)
        if not math.isfinite(loss):
            raise _not_finite(progress.step, f"the validation loss ({loss})", self._first_bad(Tape()))
        if progress.best_loss is None or loss < progress.best_loss:
            progress.best_loss, progress.best_step, progress.since_best = loss, progress.step, 0
            if self.best is not None:
                np.copyto(self.best, self.flat.values)
        else:
            progress.since_best += 1
            if 0 < settings.patience <= progress.since_best:
                progress.stopped = "patience"
        return loss

    def _first_bad(self, tape: Tape) -> str:
        """Name the first tensor of a forward pass that is not finite."""
        if bad := first_not_finite(self.model.parameters()):
            return f"parameter {bad}"
        for path, saved in tape:
            if any(not np.isfinite(array).all() for array in _float_arrays(saved)):
                return f"an activation of {path}"
        return "the logits"


def _check(model: Any, data: TrainingData, settings: TrainSettings, rewrite: Rewrite | None) -> None:
    """Refuse what cannot be trained, before the first step."""
    for examples in (data.train, data.validation):
        if examples is not None:
            examples.check(model)
    if settings.eval_every and data.validation is None:
        raise UsageError("data_missing", "eval_every asks for evaluations, and there are no validation examples")
    if settings.patience and not settings.eval_every:
        raise UsageError("contradicting_options", "patience counts evaluations: set eval_every too")
    if settings.patience and rewrite is not None:
        raise UsageError(
            "contradicting_options", "patience keeps the best model, and this run changes its weights' storage"
        )


def _not_finite(step: int, what: str, where: str) -> TrainingError:
    return TrainingError(
        "loss_not_finite",
        f"step {step}: {what} is not a finite number; the first tensor that is not: {where}. "
        "Checkpoints from before are kept. Lower learning_rate, lengthen warmup_steps, or set clip",
    )


def _float_arrays(saved: Any) -> Iterator[np.ndarray]:
    """Yield the floating-point arrays of what a layer saved."""
    if isinstance(saved, np.ndarray):
        if saved.dtype.kind == "f":
            yield saved
    elif isinstance(saved, tuple | list):
        for item in saved:
            yield from _float_arrays(item)


def _described(objective: Any) -> str:
    """Name an objective and its plain options."""
    described = type(objective).__name__
    if dataclasses.is_dataclass(objective):
        for field in dataclasses.fields(objective):
            value = getattr(objective, field.name)
            if isinstance(value, Objective):
                described += f" {field.name}=({_described(value)})"
            elif isinstance(value, bool | int | float | str | Mapping | tuple):
                described += f" {field.name}={value!r}"
    return described


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        stored: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        digest.update(stored)
    return digest.hexdigest()[:16]
