"""metrics.jsonl: the record of a run, one JSON object a line."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minislm.files.durable import new_file

NAME = "metrics.jsonl"


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step, as the record keeps it and as `report` is told.

    Parameters
    ----------
    step : int
        1 for the first one.
    steps : int
        How many the run has.
    loss : float
        Mean of the step's training batches.
    learning_rate : float
        The step's rate.
    grad_norm : float
        Norm of the gradient before clipping.
    tokens : int
        Tokens trained on so far, repeated ones counted each time.
    tokens_per_s : float
        In this step, evaluation left out.
    elapsed_s : float
        Seconds since the run began, evaluation included; the time between an interruption and its resumption is not.
    validation_loss : float, optional
        What `Objective.judge` says of the validation examples, in nats, where this step ended in an evaluation.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    tokens_per_s: float
    elapsed_s: float
    validation_loss: float | None = None

    @property
    def remaining_s(self) -> float:
        """Seconds left if the steps to come take as long as those before."""
        return self.elapsed_s / self.step * (self.steps - self.step)


class Metrics:
    """The file, open for appending.

    Parameters
    ----------
    directory : Path
        Where it stands.
    step : int
        The step that the run goes on from: later lines, which an interrupted run left, are dropped; 0: all.
    """

    def __init__(self, directory: Path, step: int) -> None:
        path = directory / NAME
        self.history = [record for record in read_metrics(path) if record.step <= step]
        with new_file(path) as temporary:
            temporary.write_text("".join(_line(record) for record in self.history), encoding="utf-8")
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (closed by `close`)

    def append(self, record: StepRecord) -> None:
        """Write one line, and keep it in `history`.

        Parameters
        ----------
        record : StepRecord
            The step after the last one there.
        """
        self.history.append(record)
        line = _line(record).encode()
        while line:
            line = line[self._file.write(line) :]

    def sync(self) -> None:
        """Bring what was written to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[StepRecord]:
    """Read a record.

    Parameters
    ----------
    path : Path
        A metrics.jsonl; nothing there: no records.

    Returns
    -------
    list of StepRecord
        In the order of their steps, up to the first line that is not whole.
    """
    records: list[StepRecord] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                values: dict[str, Any] = json.loads(line)
                records.append(StepRecord(**values))
            except (ValueError, TypeError):
                break
    return records


def _line(record: StepRecord) -> str:
    values = dataclasses.asdict(record)
    if record.validation_loss is None:
        del values["validation_loss"]
    return json.dumps(values) + "\n"
