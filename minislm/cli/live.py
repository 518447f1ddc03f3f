"""A live line for long work: bars on a terminal, now and then a plain line elsewhere; all of it on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

import click

from minislm.compression.recipe import StepStarted
from minislm.training.metrics import StepRecord

PLAIN_EVERY_S = 15.0  # between two lines where there is no terminal
BESIDE = 20  # columns of a terminal that percent, the time that remains and the least of a bar take


class Live:
    """Shows the records of training while a ``with`` block runs; an instance is called with each of them.

    Parameters
    ----------
    quiet : bool
        Show nothing.
    what : str
        What is going on, until `name` says otherwise.
    """

    def __init__(self, *, quiet: bool, what: str = "train") -> None:
        self.quiet = quiet
        self.what = what
        self.now = what  # of `what`, the step of a recipe
        self.bar: Any = None
        self.task: Any = None
        self.step = 0  # the last one that was shown
        self.last_line = time.monotonic()

    def __enter__(self) -> Self:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
            from rich.table import Column

            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[state]}"),
                TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),  # so that the bar gives way
                console=Console(stderr=True, highlight=False),
                transient=True,
            )
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
        if kind is KeyboardInterrupt:
            click.echo("run the same command again to go on from here", err=True)

    def __call__(self, event: Any) -> None:
        """Show one event; kinds that mean nothing here are passed over.

        Parameters
        ----------
        event : StepRecord or StepStarted
            What happened.
        """
        if isinstance(event, StepRecord):
            self._step(event)
        elif isinstance(event, StepStarted):
            step = f": {event.method} ({event.number} of {event.n_steps})" if event.n_steps > 1 else ""
            self._begin(self.what + step)

    def name(self, what: str) -> None:
        """Say what is going on from now on.

        Parameters
        ----------
        what : str
            A few words.
        """
        self.what = what
        self._begin(what)

    def line(self, text: str) -> None:
        """Print a line that stays.

        Parameters
        ----------
        text : str
            Printed on stderr, above the bar.
        """
        if self.bar is not None:
            self.bar.console.print(text, markup=False)
        elif not self.quiet:
            click.echo(text, err=True)

    def _begin(self, now: str) -> None:
        """Start the bar of something new."""
        self.now, self.step = now, 0
        if self.bar is not None:
            if self.task is not None:
                self.bar.remove_task(self.task)
            self.task = self.bar.add_task(now, total=None, state="")

    def _step(self, record: StepRecord) -> None:
        if self.bar is not None and self.task is None:
            self._begin(self.now)
        if record.step > self.step + 1:
            self.line(f"{self.now}: goes on after step {record.step - 1}")
        self.step = record.step
        loss = f"loss {record.loss:.3f}"
        state = f"{loss}  {record.tokens_per_s:,.0f} tokens/s"
        if self.bar is not None:
            fits = len(self.now) + len(state) + BESIDE <= self.bar.console.width
            self.bar.update(self.task, total=record.steps, completed=record.step, state=state if fits else loss)
        elif time.monotonic() - self.last_line > PLAIN_EVERY_S:
            self.last_line = time.monotonic()
            self.line(f"{self.now}: step {record.step} of {record.steps}, {state}, {record.remaining_s:.0f} s left")
        if record.validation_loss is not None:
            self.line(f"{self.now}: step {record.step}, validation loss {record.validation_loss:.4f}")
