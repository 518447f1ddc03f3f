"""What the Numba kernels share: one set of compiler settings, array types, and functions that LLVM can vectorise.

LLVM calls a function for each exponential; the polynomials here have no branch and no call, so that it does a register
at once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import float32, types

SETTINGS = {"nogil": True, "fastmath": False, "error_model": "numpy"}
LANES = 16


def compiled(signature: Any) -> Callable[[Any], Any]:
    """Compile for one signature, at import, and keep the machine code on disk.

    Numba's cache notices a change in a kernel's own file but not in this one, whose functions are compiled into every
    kernel: so the folder of the cache is named after this file's contents.
    """

    def compile_now(function: Any) -> Any:
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = str(_cache_folder(before))
        try:
            return numba.njit(signature, cache=True, **SETTINGS)(function)
        finally:
            numba.config.CACHE_DIR = before

    return compile_now


def _cache_folder(wished: str) -> Path:
    here = Path(__file__)
    writable = here.parent if os.access(here.parent, os.W_OK) else Path.home() / ".cache" / "minislm"
    contents = hashlib.sha256(here.read_bytes()).hexdigest()
    return (Path(wished) if wished else writable / "__pycache__") / f"numba-{contents[:12]}"


def inlined(function: Any) -> Any:
    """Compile a helper into whatever calls it."""
    return numba.njit(function, **SETTINGS)


def summing(function: Any) -> Any:
    """Compile a helper whose sums LLVM may take in another order, a register at once; it gets no other liberty."""
    return numba.njit(function, **{**SETTINGS, "fastmath": {"reassoc"}})


def reads(n_axes: int, dtype: Any = float32) -> Any:
    """Type of an array that is only read; a writable one passes too."""
    return types.Array(dtype, n_axes, "C", readonly=True)


def writes(n_axes: int, dtype: Any = float32) -> Any:
    """Type of an array that is written."""
    return types.Array(dtype, n_axes, "C")


@inlined
def exponential(x: Any) -> Any:
    """e^x: x = n ln 2 + r, a polynomial in r of relative error 3e-9, and 2^n in two factors; as in `c/functions.h`."""
    x = min(max(x, float32(-104.0)), float32(90.0)) if x == x else x
    n = np.rint(x * float32(1.44269504))
    r = (x - n * float32(0.693359375)) + n * float32(2.12194440e-4)
    q = float32(0.00138145359)
    q = q * r + float32(0.00836874545)
    q = q * r + float32(0.0416683927)
    q = q * r + float32(0.166665211)
    q = q * r + float32(0.49999994)
    p = q * (r * r) + r + float32(1.0)
    whole = np.int32(n)
    half = whole >> np.int32(1)
    return p * power_of_two(half) * power_of_two(whole - half)


@inlined
def power_of_two(n: Any) -> Any:
    """2^n for a whole n from -126 to 127, by its bits."""
    return np.int32((n + np.int32(127)) << np.int32(23)).view(np.float32)


@inlined
def logistic(x: Any) -> Any:
    """1 / (1 + e^-x)."""
    return float32(1.0) / (float32(1.0) + exponential(-x))


@inlined
def error_function(x: Any) -> Any:
    """erf(x), by the rational function of `ops.activation.erf`."""
    x = min(max(x, float32(-4.0)), float32(4.0)) if x == x else x
    s = x * x
    above = float32(6.7824065e-06)
    above = above * s + float32(4.1106646e-04)
    above = above * s + float32(4.2269407e-03)
    above = above * s + float32(5.5748093e-02)
    above = above * s + float32(1.9290583e-01)
    above = above * s + float32(1.1283792e00)
    below = float32(2.6001491e-07)
    below = below * s + float32(7.2498424e-05)
    below = below * s + float32(1.4210275e-03)
    below = below * s + float32(1.6295343e-02)
    below = below * s + float32(1.1750209e-01)
    below = below * s + float32(5.0429177e-01)
    below = below * s + float32(1.0)
    return x * above / below


@summing
def shifted_dot(x: Any, y: Any, shift: Any) -> Any:
    """Sum of x[i] * (y[i] - shift)."""
    total = float32(0.0)
    for i in range(x.size):
        total += x[i] * (y[i] - shift)
    return total


@summing
def summed(x: Any) -> Any:
    """Sum of x[i]."""
    total = float32(0.0)
    for i in range(x.size):
        total += x[i]
    return total


@inlined
def largest(x: Any, part: Any) -> Any:
    """Largest of x[i], -inf for none, NaN where there is one; in the LANES numbers of the scratch array `part`."""
    part[:] = float32(-np.inf)
    whole = x.size - x.size % LANES
    for start in range(0, whole, LANES):
        for j in range(LANES):
            part[j] = larger(x[start + j], part[j])
    top = float32(-np.inf)
    for i in range(whole, x.size):
        top = larger(x[i], top)
    for j in range(LANES):
        top = larger(part[j], top)
    return top


@inlined
def larger(x: Any, top: Any) -> Any:
    """The larger one; a NaN is taken when it comes, and nothing exceeds it."""
    return x if x > top or x != x else top


@inlined
def widened(half: Any) -> Any:
    """The value of the float16 whose bits these are, which Numba does not know; as in `c/codes.h`."""
    bits = np.int32(half)
    value = np.int32((bits & np.int32(0x7FFF)) << np.int32(13)).view(np.float32) * float32(2.0**112)
    if (bits & np.int32(0x7C00)) == np.int32(0x7C00):
        value = float32(np.inf) if (bits & np.int32(0x03FF)) == 0 else float32(np.nan)
    return -value if bits & np.int32(0x8000) else value


@inlined
def unpack_codes(packed: Any, bits: Any, table: Any, codes: Any) -> None:
    """Write the codes of a row, one to each place of `codes`, or what they are numbers of if there is a table."""
    unpack(packed, bits, codes)
    if table.size:
        for i in range(codes.size):
            codes[i] = table[codes[i]]


@inlined
def unpack(packed: Any, bits: Any, codes: Any) -> None:
    """Write the codes of a row, one to each place of `codes`; the widths in use have loops that LLVM can vectorise."""
    n, done = codes.size, 0
    if bits == 8:
        done = n
        for i in range(n):
            codes[i] = packed[i]
    elif bits == 4:
        done = n // 2 * 2
        for i in range(n // 2):
            codes[2 * i] = packed[i] & np.uint8(15)
            codes[2 * i + 1] = packed[i] >> np.uint8(4)
    elif bits == 3:
        done = n // 8 * 8
        for i in range(n // 8):
            word = np.uint32(packed[3 * i]) | np.uint32(packed[3 * i + 1]) << np.uint32(8)
            word |= np.uint32(packed[3 * i + 2]) << np.uint32(16)
            for k in range(8):
                codes[8 * i + k] = (word >> np.uint32(3 * k)) & np.uint32(7)
    elif bits == 2:
        done = n // 4 * 4
        for i in range(n // 4):
            for k in range(4):
                codes[4 * i + k] = (packed[i] >> np.uint8(2 * k)) & np.uint8(3)
    for i in range(done, n):
        first = i * bits // 8
        word = np.uint32(packed[first])
        if first + 1 < packed.size:
            word |= np.uint32(packed[first + 1]) << np.uint32(8)
        codes[i] = (word >> np.uint32(i * bits % 8)) & np.uint32((1 << bits) - 1)


@inlined
def decode(codes: Any, halves: Any, floats: Any, zeros: Any, zero: Any, group: Any, w: Any) -> None:
    """Write the values of a row of codes; its scales are `halves` (their bits) or, if there are none, `floats`."""
    for j in range(-(-codes.size // group)):
        scale = widened(halves[j]) if halves.size else floats[j]
        base = float32(zeros[j]) if zeros.size else float32(zero)
        codes_Z, w_Z = codes[j * group : (j + 1) * group], w[j * group : (j + 1) * group]
        for i in range(codes_Z.size):
            w_Z[i] = scale * (float32(codes_Z[i]) - base)


@numba.njit(nogil=True, fastmath={"reassoc", "contract"})  # free in their order; NaN and infinity keep their meaning
def dot(x: Any, y: Any) -> Any:
    """Sum of x[i] * y[i], in as many running sums as LLVM likes."""
    total = float32(0.0)
    for i in range(x.size):
        total += x[i] * y[i]
    return total
