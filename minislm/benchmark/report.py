"""What `minislm bench` shows: aligned tables, and the picture of the machine's roofline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from minislm.benchmark.limits import Limit, best
from minislm.benchmark.run import Measured, Outcome
from minislm.look.plots import BLUE, GRAY, ORANGE, new_figure

LIMITS = ("limit", "threads", "median", "rounds", "unit")
ROWS = ("work", "engine", "value", "unit", "spread", "error", "KL", "MB", "instructions", "settings")
TARGETS = ("work", "of", "against", "ratio", "at least", "aim", "")


def limit_rows(limits: Iterable[Limit]) -> list[tuple[str, ...]]:
    """Format limits.

    Parameters
    ----------
    limits : iterable of Limit
        As measured.

    Returns
    -------
    list of tuple of str
        Cells in the order of `LIMITS`.
    """
    return [
        (x.name, str(x.threads), _number(x.value), f"{_number(x.low)} to {_number(x.high)}", x.unit) for x in limits
    ]


def engine_rows(outcome: Outcome) -> list[tuple[str, ...]]:
    """Format what became of the contenders of a row.

    Parameters
    ----------
    outcome : Outcome
        Of the row.

    Returns
    -------
    list of tuple of str
        Cells in the order of `ROWS`; those that failed say why in place of a value.
    """
    return [_engine_row(outcome, one) for one in outcome.measured]


def _engine_row(outcome: Outcome, one: Measured) -> tuple[str, ...]:
    work = f"{outcome.suite}/{outcome.row.name}"
    error, divergence = (f"{x:.2g}" if x is not None else "" for x in (one.error, one.divergence))
    if one.failure or one.facts is None:
        return work, one.label, "failed", "", "", error, divergence, "", "", one.failure
    value = _number(outcome.row.value(one.seconds))
    size = f"{one.facts.weights_bytes / 1e6:,.1f}" if one.facts.weights_bytes else ""
    settings = f"{one.facts.version}, {one.facts.settings}"
    return (
        *(work, one.label, value, outcome.row.unit, f"{one.spread:.0%}", error, divergence, size),
        *(one.facts.instructions, settings),
    )


def target_rows(outcomes: Iterable[Outcome]) -> list[tuple[str, ...]]:
    """Format what became of the targets.

    Parameters
    ----------
    outcomes : iterable of Outcome
        Of all rows.

    Returns
    -------
    list of tuple of str
        Cells in the order of `TARGETS`.
    """
    return [
        (
            f"{outcome.suite}/{outcome.row.name}",
            verdict.ours,
            verdict.against,
            "" if verdict.ratio is None else f"{verdict.ratio:.2f}",
            f"{verdict.target.least:.2f}",
            f"{verdict.target.aim:.2f}",
            verdict.word,
        )
        for outcome in outcomes
        for verdict in outcome.verdicts
    ]


def plot_roofline(limits: Sequence[Limit], outcomes: Iterable[Outcome], threads: int, path: Path) -> None:
    """Draw what minislm reached under the roof that memory and int8 products leave.

    Parameters
    ----------
    limits : sequence of Limit
        As measured.
    outcomes : iterable of Outcome
        Of all rows; those whose bytes and products are known are drawn.
    threads : int
        Of the limits.
    path : Path
        The PNG to write.

    Raises
    ------
    UnsupportedError
        Code ``plot_extra_missing``: matplotlib is not installed.
    """
    figure, (axes,) = new_figure(width=8.0, height=5.2)
    memory, peak = best(limits, "memory", threads), best(limits, "int8", threads)
    intensity = np.geomspace(0.5, 4096, 200)  # products for each byte
    if memory is not None and peak is not None:
        axes.plot(intensity, np.minimum(intensity * memory.value, peak.value), color=GRAY, label="limit, int8")
    for outcome in outcomes:
        for one in outcome.measured:
            if one.facts is None or not one.facts.unit_bytes or not one.rounds:
                continue
            rows = outcome.row.work.get("rows") or (1 if "new" in outcome.row.work else outcome.row.amount)
            x = one.facts.unit_products * rows / one.facts.unit_bytes
            y = outcome.row.amount * one.facts.unit_products / one.seconds / 1e9
            axes.plot([x], [y], "o", color=ORANGE if "int" in one.label else BLUE)
            axes.annotate(f"{outcome.suite}/{outcome.row.name}\n{one.label}", (x, y), fontsize=6, xytext=(4, 2),
                          textcoords="offset points")  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("products for each byte that is read")
    axes.set_ylabel("GMAC/s")
    axes.set_title(f"What {threads} threads can do at most, and what they do")
    axes.legend()
    figure.savefig(path)


def _number(value: float) -> str:
    """Write three digits, and no more than are there."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"
