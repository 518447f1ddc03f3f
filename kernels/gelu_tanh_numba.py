"""GELU by its tangent approximation, in one compiled loop; 0.5 (1 + tanh u) is the logistic function of 2u."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, void

from minislm.kernels import border
from minislm.kernels.jit import compiled, logistic, reads, writes


def gelu_tanh(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> tuple[np.ndarray, Any]:
    """Same as `ops.activation.gelu_tanh`."""
    x = border.checked(x, "x")
    y = border.output(out, x.shape, *(() if out is x else (x,)))
    _forward(x.reshape(-1), y.reshape(-1))
    return border.delivered(y, out), (x,)


def gelu_tanh_backward(dy: np.ndarray, saved: Any, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """Same as `ops.activation.gelu_tanh_backward`."""
    dy, x = border.checked(dy, "dy"), border.checked(saved[0], "x")
    border.same_shape(dy, "dy", x.shape)
    dx = border.output(out, x.shape, dy, x)
    _backward(dy.reshape(-1), x.reshape(-1), dx.reshape(-1))
    return border.delivered(dx, out)


@compiled(void(reads(1), writes(1)))
def _forward(x, y):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        z = x[i]
        y[i] = z * logistic(float32(1.59576912) * z * (float32(1.0) + float32(0.044715) * z * z))


@compiled(void(reads(1), reads(1), writes(1)))
def _backward(dy, x, dx):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        z = min(max(x[i], float32(-10.0)), float32(10.0)) if x[i] == x[i] else x[i]
        gate = logistic(float32(1.59576912) * z * (float32(1.0) + float32(0.044715) * z * z))
        slope = float32(1.59576912) * (float32(1.0) + float32(0.134145) * z * z)
        dx[i] = dy[i] * (gate + gate * (float32(1.0) - gate) * z * slope)
