"""What the product kernels cost beside their NumPy op and beside a float32 product of the same shape.

    python tests/benchmarks/bench_products.py
    python tests/benchmarks/bench_products.py --matrices int4-32 2:4 --shapes 2048x2048 --rows 1 --cold

Every kernel must first give what its op gives. Then all engines take turns, round after round, and each line shows the
median time of the NumPy op, and how many times faster than it and than the float32 product each kernel is (above 1:
the kernel is faster), with the middle half of the rounds' ratios to the float32 product behind. With ``--cold`` every
call meets other weights, of which there are so many that they come from memory, as they do in a large model that
generates. BLAS and kernels both get ``--threads``; with one thread the processor's time is taken, not the clock's, so
that a busy machine disturbs less.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minislm import dispatch
from minislm.kernels import KERNELS, instruction_set
from minislm.ops import load_op
from minislm.testing.tolerances import assert_close
from minislm.weights.quantized import Quantized
from minislm.weights.sparse import Sparse

Call = Callable[[np.ndarray], np.ndarray]
MATRICES = (
    *("int8", "int8-32", "int4-32", "uint4-128", "int3-32", "int2-64"),
    *("int8 int8-row", "int8 int8-32", "int4-32 int8-32", "low-rank"),
    *("bitmap", "bitmap int8", "2:4", "2:4 int8", "csr", "csr int8"),
)
COLD_BYTES = 256 * 2**20


def arguments(
    kind: str, w_OI: np.ndarray, rng: np.random.Generator
) -> tuple[str, tuple[Any, ...], dict[str, Any], Quantized | Sparse | None]:
    """Store a matrix in one of `MATRICES`; return the op, its arguments behind x, and what lies in panels."""
    storage, _, detail = kind.partition(" ")
    n_outputs, n_inputs = w_OI.shape
    if storage == "low-rank":  # a quarter of the dense matrix's numbers
        rank = max(1, n_outputs * n_inputs // (4 * (n_outputs + n_inputs)))
        factors = rng.normal(size=(rank, n_inputs)), rng.normal(size=(n_outputs, rank))
        return "low_rank_product", tuple(factor.astype(np.float32) for factor in factors), {}, None
    if storage in ("bitmap", "csr") or ":" in storage:
        mask_OI = rng.random(w_OI.shape) < (0.1 if storage == "csr" else 0.5)
        if ":" in storage:
            n, m = map(int, storage.split(":"))
            order = rng.random((n_outputs, n_inputs // m, m)).argsort(axis=2)
            mask_OI = (order < n).reshape(w_OI.shape)
        sparse = Sparse.from_dense(w_OI, mask_OI, storage, detail or None)
        family, constants, options = sparse._product
        return f"{family}_product", constants, options, None if storage == "csr" else sparse
    quantized = Quantized.nearest(w_OI, storage, detail or "float")
    options = {"format": quantized.format, **({"activations": detail} if detail else {})}
    return f"quantized_product{'_int8' if detail else ''}", quantized.stored, options, quantized


def engines(
    kind: str, w_OI: np.ndarray, copies: int, threads: int, tiers: list[str], rng: np.random.Generator
) -> dict[str, Iterator[Call]]:
    """Return for each engine an endless iterator over its calls, one for each copy of the weights."""
    op, constants, options, weight = arguments(kind, w_OI, rng)
    stored = [tuple(array.copy() for array in constants if array is not None) for _ in range(copies)]
    dense = [w_OI.copy() for _ in range(copies)]
    reference = load_op(op)
    found = {
        "float32": [lambda x, w=w: x @ w.T for w in dense],
        "numpy": [lambda x, arrays=arrays: reference(x, *arrays, **options) for arrays in stored],
    }
    for tier in tiers:
        if tier == "cython" and weight is not None:  # in panels, as a Program lays it out
            found[tier] = [dataclasses.replace(weight).apply for _ in range(copies)]
            continue
        row = next(row for row in KERNELS if (row.op, row.technology) == (op, tier))
        kernel = dispatch._Row(row).kernel
        found[tier] = [
            lambda x, arrays=arrays, kernel=kernel: kernel(x, *arrays, threads=threads, **options) for arrays in stored
        ]
    return {name: itertools.cycle(calls) for name, calls in found.items()}


def measured(
    calls: dict[str, Iterator[Call]], x_NI: np.ndarray, rounds: int, seconds: float, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Return each engine's time a call, in seconds, in every round; engines take turns."""
    repeats = {}
    for name, turn in calls.items():
        next(turn)(x_NI)
        start = clock()
        next(turn)(x_NI)
        repeats[name] = max(1, min(2000, int(seconds / (clock() - start + 1e-7))))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, turn in calls.items():
            batch = [next(turn) for _ in range(repeats[name])]
            start = clock()
            for call in batch:
                call(x_NI)
            times[name].append((clock() - start) / repeats[name])
    return times


def report(kind: str, shape: str, n_rows: int, times: dict[str, list[float]], tiers: list[str]) -> str:
    """Write one line of the table."""
    numpy, dense = times["numpy"], times["float32"]
    line = (
        f"{kind:16} {shape:>10} {n_rows:4} {1e3 * statistics.median(dense):9.3f} {1e3 * statistics.median(numpy):9.3f}"
    )
    for tier in tiers:
        own = times[tier]
        ratios = sorted(d / t for d, t in zip(dense, own, strict=True))
        low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        by_numpy = statistics.median(t / o for t, o in zip(numpy, own, strict=True))
        line += f" | {1e3 * statistics.median(own):8.3f} {by_numpy:7.1f}"
        line += f" {statistics.median(ratios):6.2f} ({low:.2f}-{high:.2f})"
        n_outputs, n_inputs = map(int, shape.split("x"))
        line += f" {1e-9 * n_rows * n_outputs * n_inputs / statistics.median(own):7.1f}"
    return line


def main() -> int:
    """Parse the command line, check, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--matrices", nargs="+", default=MATRICES, metavar="KIND", help=", ".join(MATRICES))
    parser.add_argument("--shapes", nargs="+", default=["128x128", "512x128", "2048x512", "2048x2048"], metavar="OxI")
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 4, 32, 512], help="rows of x, one after the other")
    parser.add_argument("--tiers", nargs="+", default=["cython", "numba"], choices=["cython", "numba"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.02, help="time of one engine in one round")
    parser.add_argument("--threads", type=int, default=dispatch.threads())
    parser.add_argument("--cold", action="store_true", help="let the weights come from memory, not from a cache")
    options = parser.parse_args()
    if os.environ.get("OPENBLAS_NUM_THREADS") != str(options.threads):  # BLAS reads it when it is loaded
        os.execve(
            sys.executable, [sys.executable, *sys.argv], {**os.environ, "OPENBLAS_NUM_THREADS": str(options.threads)}
        )
    clock = time.process_time if options.threads == 1 else time.perf_counter
    rng = np.random.default_rng(0)
    print(f"{options.threads} threads, {instruction_set().chosen or 'no compiled kernels'}; times in ms")
    dispatch.threads(options.threads)
    heads = " | ".join(f"{tier:>8} xnumpy xfloat32          GMAC/s" for tier in options.tiers)
    print(f"{'matrix':16} {'shape':>10} rows {'float32':>9} {'numpy':>9} | {heads}")
    for kind, shape in itertools.product(options.matrices, options.shapes):
        n_outputs, n_inputs = map(int, shape.split("x"))
        w_OI = rng.normal(size=(n_outputs, n_inputs)).astype(np.float32)
        copies = 1 + COLD_BYTES // w_OI.nbytes if options.cold else 1
        for n_rows in options.rows:
            x_NI = rng.normal(size=(n_rows, n_inputs)).astype(np.float32)
            calls = engines(kind, w_OI, copies, options.threads, options.tiers, rng)
            expected = next(calls["numpy"])(x_NI)
            for tier in options.tiers:
                assert_close(next(calls[tier])(x_NI), expected, length=n_inputs, factor=8.0, name=f"{tier}, {kind}")
            times = measured(calls, x_NI, options.rounds, options.seconds, clock)
            print(report(kind, shape, n_rows, times, options.tiers), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
