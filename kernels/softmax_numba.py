"""Softmax in compiled loops: each row stays in the nearest cache between its passes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, void

from minislm.kernels import border
from minislm.kernels.jit import LANES, compiled, exponential, largest, reads, shifted_dot, summed, writes


def softmax(x_NV: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> tuple[np.ndarray, Any]:
    """Same as `ops.softmax.softmax`."""
    x = border.checked(x_NV, "x", 2)
    p = border.output(out, x.shape, *(() if out is x else (x,)))
    _forward(x, p)
    p = border.delivered(p, out)
    return p, (p,)


def softmax_backward(dp_NV: np.ndarray, saved: Any, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """Same as `ops.softmax.softmax_backward`."""
    dp, p = border.checked(dp_NV, "dp", 2), border.checked(saved[0], "p", 2)
    border.same_shape(dp, "dp", p.shape)
    dx = border.output(out, p.shape, dp, p)
    _backward(dp, p, dx)
    return border.delivered(dx, out)


@compiled(void(reads(2), writes(2)))
def _forward(x_NV, p_NV):  # type: ignore[no-untyped-def]
    part = np.empty(LANES, np.float32)
    n, v = x_NV.shape
    for i in range(n):
        x_V, p_V = x_NV[i], p_NV[i]
        top = largest(x_V, part)
        if top == float32(-np.inf):
            top = float32(0.0)
        for j in range(v):
            p_V[j] = exponential(x_V[j] - top)
        total = summed(p_V)
        share = float32(1.0) / total if total != float32(0.0) else float32(1.0)
        for j in range(v):
            p_V[j] *= share


@compiled(void(reads(2), reads(2), writes(2)))
def _backward(dp_NV, p_NV, dx_NV):  # type: ignore[no-untyped-def]
    n, v = p_NV.shape
    for i in range(n):
        dp_V, p_V, dx_V = dp_NV[i], p_NV[i], dx_NV[i]
        along = shifted_dot(dp_V, p_V, float32(0.0))
        for j in range(v):
            dx_V[j] = p_V[j] * (dp_V[j] - along)
