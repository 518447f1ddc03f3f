"""What is measured: suites of rows over the same contenders, and what each row should reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from minislm.benchmark.engine import Contender


@dataclass(frozen=True)
class Target:
    """What a row should reach.

    Parameters
    ----------
    ours : str
        The contenders of minislm that count, of which the fastest is taken: a pattern of their labels.
    against : str
        What it is divided by: a pattern of labels, of which the fastest is taken; ``"memory"`` or ``"int8 peak"``,
        limits of the machine; ``"row NAME"``, the same contender's work in another row; or ``"nothing"``: the value
        itself should be small.
    least, aim : float
        The ratio that is asked for, and the one that is hoped for.
    """

    ours: str
    against: str
    least: float
    aim: float


@dataclass(frozen=True)
class Row:
    """One kind of work.

    Parameters
    ----------
    name : str
        By which it is chosen.
    what : str
        For people.
    work : mapping
        What the engines are asked to do.
    amount : float
        How many units it is.
    unit : str
        ``"ms"`` or ``"s"``: the time of a run is shown; ``"x file"``: what the engine returns; else the units in a
        second, such as ``"tokens/s"``.
    targets : tuple of Target
        What is asked for.
    labels : str
        A pattern of the contenders that take part.
    """

    name: str
    what: str
    work: Mapping[str, Any]
    amount: float
    unit: str
    targets: tuple[Target, ...] = ()
    labels: str = "*"

    def value(self, seconds: float) -> float:
        """Turn what is measured into what is shown.

        Parameters
        ----------
        seconds : float
            Of one run.

        Returns
        -------
        float
            In the row's unit.
        """
        if self.unit == "ms":
            return 1e3 * seconds
        return seconds if self.unit in ("s", "x file") else self.amount / seconds


@dataclass(frozen=True)
class Suite:
    """Rows over the same contenders, each of which is loaded once.

    Parameters
    ----------
    name : str
        Of the model, or of the kind of work.
    contenders : tuple of Contender
        All of them, minislm's first.
    rows : tuple of Row
        In order.
    reference : Contender, optional
        Whose output the others' is compared with. None: each knows what is expected, or the first one tells.
    most_error : float
        The largest normalised mean square error with which a contender is worth timing.
    logits : bool
        Whether outputs are logits, whose divergence is shown too.
    """

    name: str
    contenders: tuple[Contender, ...]
    rows: tuple[Row, ...]
    reference: Contender | None = None
    most_error: float = 1e-3
    logits: bool = False


def matches(label: str, patterns: str) -> bool:
    """Tell whether a label fits one of some patterns.

    Parameters
    ----------
    label : str
        Of a contender, or of a row with its suite.
    patterns : str
        As of `fnmatch`, separated by ``|``.

    Returns
    -------
    bool
        Whether it does.
    """
    return any(fnmatchcase(label, pattern) for pattern in patterns.split("|"))
