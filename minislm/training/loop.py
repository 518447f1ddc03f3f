"""`fit`: train a model, and keep what was reached safe from interruptions."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minislm.errors import TrainingError, clipped
from minislm.training.checkpoint import load, locked, save, writing
from minislm.training.data import TrainingData
from minislm.training.environment import changes, environment
from minislm.training.metrics import Metrics, StepRecord
from minislm.training.objective import Objective
from minislm.training.run import Rewrite, Run
from minislm.training.settings import TrainSettings

Report = Callable[[StepRecord], None]


@dataclass(frozen=True)
class FitResult:
    """What `fit` returns.

    Parameters
    ----------
    model : Model
        The trained one: the best on the validation examples if the settings have `patience`, else the last.
    history : tuple of StepRecord
        One for each step, those before a resumption included.
    best_loss : float, optional
        Lowest validation loss, nats; None without an evaluation.
    best_step : int
        The step it was found at; 0 without an evaluation.
    stopped : str
        Why it ended: ``"steps"`` (all done) or ``"patience"`` (no better for too long).
    notes : tuple of str
        What was noticed when resuming: damaged checkpoints that were passed over (``checkpoint_skipped: ...``), and
        what may make the last bits differ from an uninterrupted run (``resume_not_bitwise: ...``).
    """

    model: Any
    history: tuple[StepRecord, ...]
    best_loss: float | None
    best_step: int
    stopped: str
    notes: tuple[str, ...]


def fit(
    model: Any,
    data: TrainingData,
    settings: TrainSettings,
    *,
    objective: Objective | None = None,
    rewrite: Rewrite | None = None,
    directory: str | Path | None = None,
    resume: bool = True,
    report: Report | None = None,
    notice: Callable[[str], None] | None = None,
) -> FitResult:
    """Train a model.

    Parameters
    ----------
    model : Model
        Where training starts; it stays as it is, byte for byte.
    data : TrainingData
        What to learn from and be judged on.
    settings : TrainSettings
        How.
    objective : Objective, optional
        What is made small; default: that of `data`.
    rewrite : callable, optional
        ``rewrite(step, model)``, called before each step, returns Weights by path to go on with (such as the same ones
        under a smaller mask) or None. It must be a function of its arguments, and names and shapes of the trainable
        arrays must stay.
    directory : path, optional
        Where checkpoints and metrics.jsonl are kept. A run that was interrupted in any way goes on from its newest
        whole checkpoint, and ends in the same bits as one that was not (same tiers, threads and libraries). None:
        nowhere.
    resume : bool
        False: refuse a directory that holds checkpoints, instead of going on from them.
    report : callable, optional
        Called with each step's record.
    notice : callable, optional
        Called, before the first step, with each line of `FitResult.notes`.

    Returns
    -------
    FitResult
        The trained model and the record.

    Raises
    ------
    TrainingError
        Code ``loss_not_finite`` (with the step and the first bad tensor), ``checkpoint_dir_locked``,
        ``checkpoint_write_failed``, ``no_whole_checkpoint``, ``checkpoint_mismatch`` (the directory belongs to another
        run) or ``checkpoint_exists`` (`resume` is False).
    DataError, ConfigError, UsageError
        Data, settings and model do not fit together.
    KeyboardInterrupt
        SIGINT or SIGTERM came while training in a directory; the step was finished and a checkpoint saved. A second
        signal acts at once.
    """
    run = Run(model, data, settings, objective or data.objective, rewrite)
    if directory is None:
        history = []
        while not run.finished:
            history.append(run.advance())
            if report:
                report(history[-1])
        return _result(run, history, [])
    directory = Path(directory)
    with locked(directory), _interruptible() as caught:
        notes = _resume(run, directory, resume)
        if notice:
            for line in notes:
                notice(line)
        with writing(directory):
            metrics = Metrics(directory, run.progress.step)
        with contextlib.closing(metrics):
            while not run.finished:
                record = run.advance()
                with writing(directory):
                    metrics.append(record)
                if report:
                    report(record)
                interrupted = bool(caught)
                if run.checkpoint_due or interrupted:
                    with writing(directory):
                        metrics.sync()
                    save(directory, record.step, run.files(), run.state(), keep=settings.keep_checkpoints)
                if interrupted:
                    break
        if caught:
            raise KeyboardInterrupt(
                f"{signal.Signals(caught[0]).name}: stopped after step {run.progress.step}, which {directory} keeps; "
                "run again to go on"
            )
        return _result(run, metrics.history, notes)


def _result(run: Run, history: list[StepRecord], notes: list[str]) -> FitResult:
    progress = run.progress
    return FitResult(
        run.trained(), tuple(history), progress.best_loss, progress.best_step, progress.stopped, tuple(notes)
    )


def _resume(run: Run, directory: Path, resume: bool) -> list[str]:
    """Bring the run to where the directory's newest whole checkpoint is; return what there is to notice."""
    checkpoint, notes = load(directory)
    if checkpoint is None:
        return notes
    if not resume:
        raise TrainingError(
            "checkpoint_exists",
            f"{directory} holds {checkpoint.path.name}. Resume, choose another directory, or remove it",
        )
    now, then = run.identity, checkpoint.state["identity"]
    if differing := [name for name in sorted(now.keys() | then.keys()) if now.get(name) != then.get(name)]:
        told = "; ".join(f"{name} was {clipped(then.get(name))}, is {clipped(now.get(name))}" for name in differing)
        raise TrainingError(
            "checkpoint_mismatch",
            f"{checkpoint.path} belongs to another run: {told}. Choose another directory, or remove {directory}",
        )
    run.restore(checkpoint)
    return notes + changes(checkpoint.state["environment"], environment())


@contextlib.contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Collect the first SIGINT or SIGTERM in a list; a second one does what it did before. Main thread only."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def first(number: int, frame: Any) -> None:
        caught.append(number)
        restore()

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, first)
    try:
        yield caught
    finally:
        restore()
