"""The machine's limits: reading in and out of cache, products that touch nothing but registers, the thread pool."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.errors import UnsupportedError

MIB = 2**20
SIZES = (MIB, 32 * MIB, 1024 * MIB)
"""Bytes that are read again and again; of the last, no cache of today holds much."""


@dataclass(frozen=True)
class Limit:
    """The best that the machine does at one thing.

    Parameters
    ----------
    name : str
        The key by which rows refer to it, such as ``"read 1 GiB"``.
    threads : int
        Threads that share the work.
    value : float
        The median over rounds.
    low, high : float
        The least and the most of a round.
    unit : str
        Of the three.
    """

    name: str
    threads: int
    value: float
    low: float
    high: float
    unit: str


def measure_limits(threads: int, *, seconds: float = 0.2, rounds: int = 5, most_bytes: int = SIZES[-1]) -> list[Limit]:
    """Measure what the machine can do, with one thread and with several.

    Parameters
    ----------
    threads : int
        How many are several.
    seconds : float
        Length of a round.
    rounds : int
        Timed rounds of each; one more, not counted, warms up.
    most_bytes : int
        The largest array to read.

    Returns
    -------
    list of Limit
        Reading at each size, float32 and int8 products of every instruction set that runs here, AMX where there is
        any, and the cost of a barrier between stages of a pass.

    Raises
    ------
    UnsupportedError
        Code ``kernels_missing``: the loops that measure are compiled, and nothing was.
    """
    try:
        from minislm.kernels import instruction_set
        from minislm.kernels import roofline_cython as loops
        from minislm.kernels import runtime_cython as runtime
    except ImportError as error:
        raise UnsupportedError(
            "kernels_missing",
            "the machine's limits are measured by compiled loops, which are not built here; install minislm where "
            "there is a C compiler",
        ) from error
    counts = sorted({1, threads})
    found = []
    for size in [size for size in SIZES if size <= most_bytes]:
        array = np.ones(size, np.uint8)
        name = f"read {size // MIB} MiB" if size < 1024 * MIB else f"read {size // (1024 * MIB)} GiB"
        found += [_limit(name, n, "GB/s", _rate(loops.read, (array,), n, seconds, rounds)) for n in counts]
        del array
    before = instruction_set()
    try:
        for chosen in reversed(before.available):
            instruction_set(chosen)
            for name, loop, unit in (("fp32", loops.fma, "GFLOP/s"), ("int8", loops.int8, "GMAC/s")):
                found += [_limit(f"{name} {chosen}", n, unit, _rate(loop, (), n, seconds, rounds)) for n in counts]
    finally:
        instruction_set(before.chosen)
    if loops.amx(1, threads=1):
        found += [_limit("int8 amx", n, "GMAC/s", _rate(loops.amx, (), n, seconds, rounds)) for n in counts]
    found += [_limit("barrier", n, "us", _barrier(runtime.barrier_ns, n, rounds)) for n in counts if n > 1]
    return found


def best(limits: Sequence[Limit], what: str, threads: int) -> Limit | None:
    """Find a limit.

    Parameters
    ----------
    limits : sequence of Limit
        As measured.
    what : {"memory", "int8", "fp32"}
        Reading the largest array, or products of the kernels' best instruction set: AMX is none of them.
    threads : int
        How many shared the work.

    Returns
    -------
    Limit, optional
        None: it was not measured.
    """
    prefix = "read" if what == "memory" else what
    found = [limit for limit in limits if limit.threads == threads and limit.name.startswith(prefix)]
    if what == "memory":
        return found[-1] if found else None
    return max((limit for limit in found if "amx" not in limit.name), key=lambda limit: limit.value, default=None)


def _limit(name: str, threads: int, unit: str, values: list[float]) -> Limit:
    return Limit(name, threads, statistics.median(values), min(values), max(values), unit)


def _rate(loop: Callable[..., int], args: tuple[Any, ...], threads: int, seconds: float, rounds: int) -> list[float]:
    """Return how much a loop does in a nanosecond, in each round."""
    times, rates = 1, []
    while True:  # until a call is long enough; this warms up too
        start = time.perf_counter()
        loop(*args, times, threads=threads)
        elapsed = time.perf_counter() - start
        if elapsed >= seconds / 2:
            break
        times = max(2 * times, int(times * min(100.0, seconds / max(elapsed, 1e-6))))
    for _ in range(rounds):
        start = time.perf_counter()
        amount = loop(*args, times, threads=threads)
        rates.append(amount / (time.perf_counter() - start) / 1e9)
    return rates


def _barrier(barrier_ns: Callable[[int], float], threads: int, rounds: int) -> list[float]:
    """Return what one more stage costs a pass beyond its work, in microseconds, in each round."""
    return [barrier_ns(threads) / 1e3 for _ in range(rounds + 1)][1:]
