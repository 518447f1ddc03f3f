"""Which implementation of an op runs, and why.

Layers, weights, training and inference call every op as ``ops.<name>(...)`` of this module. For each call the first row
of the kernel table that fits (technology allowed, built on this machine, dtype listed, sizes preferred) runs; otherwise
the NumPy op. float64 is always NumPy. An array given as `out` receives the (first) result.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from minislm.errors import UsageError, unknown
from minislm.ops import OPS, load_op
from minislm.processors import available_processors

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
        For which dtypes and sizes, and why no faster tier runs.
    """

    tier: str
    reason: str


class _Row:
    """A kernel of the table that exists on this machine; its module is imported when it first runs."""

    def __init__(self, row: Any) -> None:
        self.technology = row.technology
        self.dtypes = frozenset(np.dtype(name) for name in row.dtypes)
        self.preferred = row.preferred
        self.function = row.function

    @functools.cached_property
    def kernel(self) -> Callable[..., Any]:
        module, _, function = self.function.partition(":")
        found: Callable[..., Any] = getattr(importlib.import_module(f"minislm.kernels.{module}"), function)
        return found


class _Dispatched:
    """One op under its name: picks a row of the table, or the reference, for each call."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.reference = load_op(name)
        self.tier = ""  # for which `rows` was made
        self.rows: list[_Row] = []

    def __call__(self, *args: Any, out: Any = None, **options: Any) -> Any:
        if self.tier != _allowed:
            self.collect()
        if self.rows:
            dtype = _first_dtype(args)
            for row in self.rows:
                if dtype in row.dtypes and (row.preferred is None or row.preferred(*args, **options)):
                    return row.kernel(*args, out=out, threads=_threads or threads(), **options)
        result = self.reference(*args, **options)
        return result if out is None else _put(result, out)

    def collect(self) -> None:
        """Find the rows that may run, the fastest tier first."""
        tiers = reversed(TIERS[: TIERS.index(_allowed) + 1])
        rows = [row for tier in tiers for row in _table() if (row.op, row.technology) == (self.name, tier)]
        self.rows = [_Row(row) for row in rows if not _missing(row)]
        self.tier = _allowed


def _first_dtype(args: Any) -> np.dtype | None:
    """Return the dtype of the first array among the arguments, or in what a forward saved."""
    for arg in args:
        if isinstance(arg, np.ndarray):
            dtype: np.dtype | None = arg.dtype
            return dtype
        if isinstance(arg, tuple) and (dtype := _first_dtype(arg)) is not None:
            return dtype
    return None


def _put(result: Any, out: np.ndarray) -> Any:
    """Copy a reference's (first) result into `out`."""
    first, *others = result if isinstance(result, tuple) else (result,)
    if out.shape != first.shape:
        raise ValueError(f"out must have shape {first.shape}, not {out.shape}")
    np.copyto(out, first)
    return (out, *others) if isinstance(result, tuple) else out


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


def runs_compiled(name: str) -> bool:
    """Tell whether a compiled kernel of an op may run: layouts that only those gain from are chosen by it.

    Parameters
    ----------
    name : str
        The op.

    Returns
    -------
    bool
        True in the Cython tier, where the kernel was built.
    """
    found: _Dispatched = getattr(ops, name)
    if found.tier != _allowed:
        found.collect()
    return bool(found.rows) and found.rows[0].technology == "cython"


def compiled() -> Any:
    """Return what compiled kernels share: `minislm.kernels.runtime_cython`.

    Returns
    -------
    module or None
        None where none may run.
    """
    if _allowed != "cython" or not _installed("minislm.kernels.runtime_cython"):
        return None
    return importlib.import_module("minislm.kernels.runtime_cython")


def _table() -> tuple[Any, ...]:
    if not _installed("minislm.kernels"):
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
    reasons = []
    for tier in reversed(TIERS[1:]):
        rows = [row for row in _table() if (row.op, row.technology) == (op.name, tier)]
        missing = next(filter(None, map(_missing, rows)), None)
        if not rows:
            continue
        if TIERS.index(tier) > TIERS.index(_allowed):
            reasons.append(f"{tier}: backend({_allowed!r}) was asked for")
        elif missing:
            reasons.append(f"{tier}: {missing}")
        else:
            dtypes = ", ".join(sorted({dtype for row in rows for dtype in row.dtypes}))
            sizes = " at the sizes that it prefers" if all(row.preferred for row in rows) else ""
            return Choice(tier, "; ".join([f"for {dtypes}{sizes}", *reasons]))
    nothing = "no kernel is written" if _installed("minislm.kernels") else "minislm.kernels is not installed"
    return Choice("numpy", "; ".join(reasons) or nothing)


def _missing(row: Any) -> str | None:
    """Tell why a kernel of the table cannot run here; None: it can."""
    if row.technology == "numba":
        return None if _installed("numba") else "Numba is not installed"
    module = row.function.partition(":")[0]
    return None if _installed(f"minislm.kernels.{module}") else "not built: there was no working compiler"


@functools.cache
def _installed(module: str) -> bool:
    package = module.rpartition(".")[0]
    return (not package or _installed(package)) and importlib.util.find_spec(module) is not None


def threads(number: int | None = None) -> int:
    """Set or tell how many threads kernels may use.

    Parameters
    ----------
    number : int, optional
        At least 1. None: only tell. The default is the number of processors that this process may use; more threads
        than these would only take turns, so that no more will work.

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
    if number is not None and number < 1:
        raise UsageError("bad_threads", f"threads must be at least 1, not {number}")
    if number is not None or not _threads:
        most = available_processors()
        _threads = min(number or most, most)
    return _threads
