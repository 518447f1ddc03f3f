"""Measuring: engines are compared first, then timed in turns, round after round, and held against their targets."""

from __future__ import annotations

import contextlib
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from minislm.benchmark.engine import REST_S, Contender, Facts, Remote
from minislm.benchmark.limits import Limit, best
from minislm.benchmark.plan import Row, Suite, Target, matches
from minislm.errors import MinislmError

ERROR_FACTOR = 1.25
"""A rival's error may be exceeded by so much before a target does not count as met: rounding has its luck."""

ROUNDING = 1e-10
"""Of float32: errors below it say nothing."""


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Parameters
    ----------
    threads : int
        Of every engine.
    rounds : int
        Timed rounds of each row.
    seconds : float
        Least length of an engine's turn in a round.
    amx : bool
        Whether engines may use AMX.
    note : callable
        Is told what goes on.
    warm_s : float
        Seconds of an engine's first turn, which is not counted; clocks take their time to rise.
    start : callable
        Given a contender, threads and whether it may use AMX, starts it: as a rule in a process of its own.
    """

    threads: int
    rounds: int = 5
    seconds: float = 1.0
    amx: bool = True
    note: Callable[[str], None] = print
    warm_s: float = 1.0
    start: Callable[..., Any] = Remote


@dataclass
class Measured:
    """What became of a contender in a row.

    Parameters
    ----------
    label : str
        Its label.
    is_rival : bool
        Whether it is another engine than minislm.
    rounds : list of float
        Seconds of one run in each round.
    error, divergence : float, optional
        Normalised mean square error against the reference, and the Kullback-Leibler divergence from it in nats.
    facts : Facts, optional
        What it tells of itself.
    failure : str
        Why there is nothing of all this; empty: there is.
    """

    label: str
    is_rival: bool
    rounds: list[float] = field(default_factory=list)
    error: float | None = None
    divergence: float | None = None
    facts: Facts | None = None
    failure: str = ""

    @property
    def seconds(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.rounds)

    @property
    def spread(self) -> float:
        """Longest less shortest round, in parts of the median."""
        return (max(self.rounds) - min(self.rounds)) / self.seconds


@dataclass(frozen=True)
class Verdict:
    """How a target was met.

    Parameters
    ----------
    target : Target
        What was asked for.
    ours, against : str
        What was compared.
    ratio : float, optional
        The figure. None: something that it needs was not measured.
    word : str
        ``"aim"``, ``"met"``, ``"missed"``, ``"error"`` (fast enough, but less exact than the rival) or
        ``"not measured"``.
    """

    target: Target
    ours: str
    against: str
    ratio: float | None
    word: str


@dataclass(frozen=True)
class Outcome:
    """What became of a row.

    Parameters
    ----------
    suite : str
        Its suite's name.
    row : Row
        What was done.
    measured : list of Measured
        One for each contender.
    verdicts : list of Verdict
        One for each target.
    """

    suite: str
    row: Row
    measured: list[Measured]
    verdicts: list[Verdict]

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values.

        Returns
        -------
        dict
            With the value of every contender in the row's unit.
        """
        engines = []
        for one in self.measured:
            shown = {"value": self.row.value(one.seconds), "spread": one.spread} if one.rounds else {}
            engines.append({**asdict(one), **shown})
        return {
            "work": f"{self.suite}/{self.row.name}",
            "what": self.row.what,
            "unit": self.row.unit,
            "engines": engines,
            "targets": [asdict(verdict) for verdict in self.verdicts],
        }


def measure(suite: Suite, limits: list[Limit], settings: Settings) -> Iterator[Outcome]:
    """Measure the rows of a suite.

    Parameters
    ----------
    suite : Suite
        What to measure.
    limits : list of Limit
        Of the machine, for the targets that are held against them.
    settings : Settings
        How.

    Yields
    ------
    Outcome
        Of each row, as soon as it is measured.
    """
    with contextlib.ExitStack() as stack:
        taking_part = [c for c in suite.contenders if any(matches(c.label, row.labels) for row in suite.rows)]
        known = {c.label: Measured(c.label, not c.ours) for c in taking_part}
        engines = _started(taking_part, known, settings, stack)
        _compare(suite, engines, known, settings, stack)
        outcomes: dict[str, Outcome] = {}
        for row in suite.rows:
            measured = [replace(known[c.label], rounds=[]) for c in taking_part if matches(c.label, row.labels)]
            settings.note(f"{suite.name}/{row.name}: {row.what}")
            _time(row, engines, measured, settings)
            verdicts = [_verdict(target, row, measured, limits, outcomes, settings) for target in row.targets]
            outcomes[row.name] = Outcome(suite.name, row, measured, verdicts)
            yield outcomes[row.name]


def _started(
    contenders: list[Contender], known: dict[str, Measured], settings: Settings, stack: contextlib.ExitStack
) -> dict[str, Any]:
    """Start what is installed; note what is not, and what fails."""
    engines: dict[str, Any] = {}
    for contender in contenders:
        if contender.package and importlib.util.find_spec(contender.package) is None:
            missing = f"{contender.package} is not installed: pip install -e '.[bench]' where minislm stands"
            known[contender.label].failure = missing
            continue
        settings.note(f"loading {contender.label}")
        with _noting(known[contender.label]):
            remote = settings.start(contender, settings.threads, amx=settings.amx)
            stack.callback(remote.close)
            engines[contender.label] = remote
    return engines


@contextlib.contextmanager
def _noting(measured: Measured) -> Iterator[None]:
    """Keep the error of an engine beside its name, and go on with the others."""
    try:
        yield
    except MinislmError as error:
        measured.failure = str(error)


def _compare(
    suite: Suite,
    engines: dict[str, Any],
    known: dict[str, Measured],
    settings: Settings,
    stack: contextlib.ExitStack,
) -> None:
    """Hold every output against the reference's; drop engines that are further away than the suite allows."""
    reference: np.ndarray | None = None
    if suite.reference is not None:
        remote = engines.get(suite.reference.label)
        if remote is None:
            settings.note(f"loading {suite.reference.label}, the reference")
            remote = settings.start(suite.reference, settings.threads, amx=settings.amx)
            stack.callback(remote.close)
        reference = remote.ask("output")
    for label in list(engines):
        measured = known[label]
        with _noting(measured):
            output, expected = engines[label].ask("output"), engines[label].ask("expected")
            reference = output if reference is None else reference
            _judge(measured, output, reference if expected is None else expected, suite)
        if measured.failure:
            del engines[label]


def _judge(measured: Measured, output: np.ndarray, reference: np.ndarray, suite: Suite) -> None:
    """Compare one output; say why it is not worth timing."""
    if output.shape != reference.shape:
        measured.failure = f"its output has shape {output.shape}, the reference's {reference.shape}"
    elif output.size:
        exact = reference.astype(np.float64)
        measured.error = float(np.square(output - exact).sum() / np.square(exact).sum())
        if suite.logits:
            measured.divergence = _divergence(exact, output.astype(np.float64))
        if not measured.error <= suite.most_error:
            measured.failure = f"its error is {measured.error:.2g}, more than {suite.most_error:g}; it is not timed"


def _divergence(p_NV: np.ndarray, q_NV: np.ndarray) -> float:
    """Return the mean divergence of the second logits from the first, in nats."""
    log_p_NV, log_q_NV = (x - np.logaddexp.reduce(x, axis=1, keepdims=True) for x in (p_NV, q_NV))
    return float((np.exp(log_p_NV) * (log_p_NV - log_q_NV)).sum(axis=1).mean())


def _time(row: Row, engines: dict[str, Any], measured: list[Measured], settings: Settings) -> None:
    """Warm everybody up, then let them take turns."""
    for turn in range(-1, settings.rounds):
        for one in measured:
            if one.failure:
                continue
            with _noting(one):
                seconds = engines[one.label].ask("time", row.work, settings.warm_s if turn < 0 else settings.seconds)
                if turn >= 0:
                    one.rounds.append(seconds)
            time.sleep(REST_S)
    for one in measured:
        if not one.failure:
            with _noting(one):
                one.facts = engines[one.label].ask("facts")


def _verdict(
    target: Target,
    row: Row,
    measured: list[Measured],
    limits: list[Limit],
    earlier: dict[str, Outcome],
    settings: Settings,
) -> Verdict:
    """Hold a row against a target."""
    ours = _fastest(measured, target.ours)
    if ours is None:
        return Verdict(target, target.ours, target.against, None, "not measured")
    if target.against == "nothing":
        small = ours.seconds
        word = "aim" if small <= target.aim else "met" if small <= target.least else "missed"
        return Verdict(target, ours.label, "", small, word)
    against, ratio, rival = _ratio(target, row, ours, measured, limits, earlier, settings)
    if ratio is None:
        return Verdict(target, ours.label, against, None, "not measured")
    word = "aim" if ratio >= target.aim else "met" if ratio >= target.least else "missed"
    if word != "missed" and rival is not None and rival.is_rival and _less_exact(ours, rival):
        word = "error"
    return Verdict(target, ours.label, against, ratio, word)


def _less_exact(ours: Measured, rival: Measured) -> bool:
    if ours.error is None or rival.error is None:
        return False
    return ours.error > ERROR_FACTOR * rival.error + ROUNDING


def _ratio(
    target: Target,
    row: Row,
    ours: Measured,
    measured: list[Measured],
    limits: list[Limit],
    earlier: dict[str, Outcome],
    settings: Settings,
) -> tuple[str, float | None, Measured | None]:
    """Return what it is held against, by how many times it is faster, and the rival if it is one."""
    if target.against in ("memory", "int8 peak"):
        limit = best(limits, target.against.removesuffix(" peak"), settings.threads)
        if limit is None or ours.facts is None:
            return target.against, None, None
        each = ours.facts.unit_bytes if target.against == "memory" else ours.facts.unit_products
        return (
            f"{limit.name}, {limit.value:.3g} {limit.unit}",
            row.amount * each / ours.seconds / 1e9 / limit.value,
            None,
        )
    if target.against.startswith("row "):
        other = earlier.get(target.against.removeprefix("row "))
        before = other and _fastest(other.measured, ours.label)
        if not other or not before:
            return target.against, None, None
        return target.against, row.value(ours.seconds) / other.row.value(before.seconds), None
    rival = _fastest(measured, target.against)
    return (target.against, None, None) if rival is None else (rival.label, rival.seconds / ours.seconds, rival)


def _fastest(measured: list[Measured], labels: str) -> Measured | None:
    """Return the fastest of those whose label fits."""
    timed = [one for one in measured if one.rounds and not one.failure and matches(one.label, labels)]
    return min(timed, key=lambda one: one.seconds, default=None)
