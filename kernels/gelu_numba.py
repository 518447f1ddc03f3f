"""GELU by the error function, in one compiled loop."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, void

from minislm.kernels import border
from minislm.kernels.jit import compiled, error_function, exponential, reads, writes


def gelu(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> tuple[np.ndarray, Any]:
    """Same as `ops.activation.gelu`."""
    x = border.checked(x, "x")
    y = border.output(out, x.shape, *(() if out is x else (x,)))
    _forward(x.reshape(-1), y.reshape(-1))
    return border.delivered(y, out), (x,)


def gelu_backward(dy: np.ndarray, saved: Any, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """Same as `ops.activation.gelu_backward`."""
    dy, x = border.checked(dy, "dy"), border.checked(saved[0], "x")
    border.same_shape(dy, "dy", x.shape)
    dx = border.output(out, x.shape, dy, x)
    _backward(dy.reshape(-1), x.reshape(-1), dx.reshape(-1))
    return border.delivered(dx, out)


@compiled(void(reads(1), writes(1)))
def _forward(x, y):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        y[i] = float32(0.5) * x[i] * (float32(1.0) + error_function(x[i] * float32(0.707106781)))


@compiled(void(reads(1), reads(1), writes(1)))
def _backward(dy, x, dx):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        z = min(max(x[i], float32(-40.0)), float32(40.0)) if x[i] == x[i] else x[i]
        density = float32(0.398942280) * exponential(float32(-0.5) * z * z)
        below = float32(0.5) * (float32(1.0) + error_function(x[i] * float32(0.707106781)))
        dx[i] = dy[i] * (below + z * density)
