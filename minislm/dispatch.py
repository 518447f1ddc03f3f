"""Which implementation of an op runs, and why.

Layers, weights, training and inference call every op as ``ops.<name>(...)`` of this module. For each call the first row
of the kernel table that fits (technology allowed, built on this machine, dtype listed, sizes preferred) runs; otherwise
the NumPy op. float64 is always NumPy. An array given as `out` receives the (first) result.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from minislm.errors import UsageError, unknown
from minislm.ops import OPS, load_op

TIERS = ("numpy", "numba", "cython")  # each may use the ones before it; the last is the fastest

_allowed: str = "cython"
_threads: int = 0


class Choice(NamedTuple):
    """What runs for an op.

    Parameters
    ----------
    tier : str
        ``"numpy"``, ``"numba"`` or ``"cython"``.
    reason : str
        Why no faster tier runs, or for which sizes this one is preferred.
    """

    tier: str
    reason: str


class _Dispatched:
    """One op under its name: finds its rows at the first call, then picks one for each call."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.reference = load_op(name)
        self.rows = [
            row for tier in ("cython", "numba") for row in _table() if (row.op, row.technology) == (name, tier)
        ]
        self.loaded: dict[str, Callable[..., Any] | None] = {}
        self.reasons: dict[str, str] = {}

    def __call__(self, *args: Any, out: Any = None, **options: Any) -> Any:
        row = self.choose(args, options)
        if row is not None:
            kernel = self.loaded[row.function]
            assert kernel is not None
            return kernel(*args, out=out, threads=threads(), **options)
        result = self.reference(*args, **options)
        if out is None:
            return result
        if isinstance(result, tuple):
            np.copyto(out, result[0])
            return (out, *result[1:])
        np.copyto(out, result)
        return out

    def choose(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        dtype = next((a.dtype.name for a in args if isinstance(a, np.ndarray)), "")
        for row in self.rows:
            if (
                TIERS.index(row.technology) <= TIERS.index(_allowed)
                and dtype in row.dtypes
                and (row.preferred is None or row.preferred(*args, **options))
                and self.load(row)
            ):
                return row
        return None

    def load(self, row: Any) -> bool:
        if row.function not in self.loaded:
            module, _, function = row.function.partition(":")
            try:
                self.loaded[row.function] = getattr(importlib.import_module(f"minislm.kernels.{module}"), function)
            except ModuleNotFoundError as error:
                self.loaded[row.function] = None
                self.reasons[row.technology] = f"{error.name} is not built or not installed"
        return self.loaded[row.function] is not None


class _Ops:
    """Every op as an attribute."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        try:
            dispatched = _Dispatched(name)
        except Exception as error:
            raise AttributeError(str(error)) from error
        setattr(self, name, dispatched)
        return dispatched


ops = _Ops()


def _table() -> tuple[Any, ...]:
    if importlib.util.find_spec("minislm.kernels") is None:
        return ()
    table: tuple[Any, ...] = importlib.import_module("minislm.kernels").KERNELS
    return table


def backend(tier: str | None = None) -> Any:
    """Force the fastest tier that may run, or tell which one runs for every op.

    Parameters
    ----------
    tier : {"numpy", "numba", "cython"}, optional
        The fastest tier allowed from now on. None: only tell.

    Returns
    -------
    dict of str to Choice, or a context manager
        Without an argument the choice and its reason for every op; with one, an object whose ``with`` block ends the
        change (the change holds from the call on, with or without ``with``).

    Raises
    ------
    UnsupportedError
        Code ``unknown_backend``.
    """
    if tier is None:
        return {name: _explain(getattr(ops, name)) for name in _names()}
    if tier not in TIERS:
        raise unknown("backend", tier, TIERS)
    global _allowed
    before, _allowed = _allowed, tier
    return _restoring(before)


@contextlib.contextmanager
def _restoring(before: str) -> Iterator[None]:
    global _allowed
    try:
        yield
    finally:
        _allowed = before


def _names() -> list[str]:
    return [name for op, row in OPS.items() for name in ([op, f"{op}_backward"] if row.gradients else [op])]


def _explain(op: _Dispatched) -> Choice:
    for row in op.rows:
        if TIERS.index(row.technology) > TIERS.index(_allowed):
            op.reasons[row.technology] = f"backend({_allowed!r}) was asked for"
        elif op.load(row):
            return Choice(
                row.technology, "for the sizes it prefers" if row.preferred else "always, for " + ", ".join(row.dtypes)
            )
    return Choice("numpy", "; ".join(op.reasons.values()) or "no kernel is written for it")


def threads(number: int | None = None) -> int:
    """Set or tell how many threads kernels may use.

    Parameters
    ----------
    number : int, optional
        At least 1. None: only tell. The default is the number of processors that this process may use.

    Returns
    -------
    int
        The number in force.

    Raises
    ------
    UsageError
        Code ``bad_threads``: less than 1.
    """
    global _threads
    if number is not None:
        if number < 1:
            raise UsageError("bad_threads", f"threads must be at least 1, not {number}")
        _threads = number
    if not _threads:
        _threads = available_processors()
    return _threads


def available_processors() -> int:
    """Count the processors that this process may use.

    Returns
    -------
    int
        The smaller of its affinity and of its control group's quota; at least 1.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        if quota != "max":
            count = min(count, max(1, -(-int(quota) // int(period))))
    return count
