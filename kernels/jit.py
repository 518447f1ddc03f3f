"""What the Numba kernels share: one set of compiler settings, array types, and functions that LLVM can vectorise.

LLVM calls a function for each exponential; the polynomials here have no branch and no call, so that it does a register
at once. Sums are kept in `LANES` running sums for the same reason.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import float32, types

SETTINGS = {"cache": True, "nogil": True, "fastmath": False, "error_model": "numpy"}
LANES = 16


def compiled(signature: Any) -> Any:
    """Compile for one signature, at import; the result is kept on disk."""
    return numba.njit(signature, **SETTINGS)


def inlined(function: Any) -> Any:
    """Compile a helper into whatever calls it."""
    return numba.njit(function, **SETTINGS)


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


@inlined
def shifted_dot(x: Any, y: Any, shift: Any, part: Any) -> Any:
    """Sum of x[i] * (y[i] - shift), in the LANES running sums of the scratch array `part`."""
    part[:] = float32(0.0)
    whole = x.size - x.size % LANES
    for start in range(0, whole, LANES):
        for j in range(LANES):
            part[j] += x[start + j] * (y[start + j] - shift)
    total = float32(0.0)
    for i in range(whole, x.size):
        total += x[i] * (y[i] - shift)
    for j in range(LANES):
        total += part[j]
    return total


@inlined
def summed(x: Any, part: Any) -> Any:
    """Sum of x[i], in the LANES running sums of the scratch array `part`."""
    part[:] = float32(0.0)
    whole = x.size - x.size % LANES
    for start in range(0, whole, LANES):
        for j in range(LANES):
            part[j] += x[start + j]
    total = float32(0.0)
    for i in range(whole, x.size):
        total += x[i]
    for j in range(LANES):
        total += part[j]
    return total


@inlined
def largest(x: Any, part: Any) -> Any:
    """Largest of x[i], -inf for none; a NaN is passed over. By the scratch array `part` as `summed`."""
    part[:] = float32(-np.inf)
    whole = x.size - x.size % LANES
    for start in range(0, whole, LANES):
        for j in range(LANES):
            part[j] = x[start + j] if x[start + j] > part[j] else part[j]
    top = float32(-np.inf)
    for i in range(whole, x.size):
        top = x[i] if x[i] > top else top
    for j in range(LANES):
        top = part[j] if part[j] > top else top
    return top
