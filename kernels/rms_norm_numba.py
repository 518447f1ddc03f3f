"""RMS norm in compiled loops: each row is measured and scaled while it is in the nearest cache."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, void

from minislm.kernels import border
from minislm.kernels.jit import compiled, reads, shifted_dot, writes


def rms_norm(
    x_ND: np.ndarray, w_D: np.ndarray, *, eps: float, out: np.ndarray | None = None, threads: int = 1
) -> tuple[np.ndarray, Any]:
    """Same as `ops.norm.rms_norm`."""
    x, w = border.checked(x_ND, "x", 2), border.checked(w_D, "w", 1)
    border.same_shape(w, "w", x.shape[1:])
    y = border.output(out, x.shape, x, w)
    r = np.empty(len(x), np.float32)
    _forward(x, w, eps, y, r)
    return border.delivered(y, out), (x, w, r)


def rms_norm_backward(
    dy_ND: np.ndarray, saved: Any, *, out: np.ndarray | None = None, threads: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Same as `ops.norm.rms_norm_backward`."""
    x_ND, w_D, r_N = saved
    dy, x, w = border.checked(dy_ND, "dy", 2), border.checked(x_ND, "x", 2), border.checked(w_D, "w", 1)
    r = border.checked(r_N, "r", 1)
    border.same_shape(dy, "dy", x.shape)
    border.same_shape(w, "w", x.shape[1:])
    border.same_shape(r, "r", x.shape[:1])
    dx = border.output(out, x.shape, dy, x, w, r)
    dw = np.zeros_like(w)
    _backward(dy, x, w, r, dx, dw)
    return border.delivered(dx, out), dw


@compiled(void(reads(2), reads(1), float32, writes(2), writes(1)))
def _forward(x_ND, w_D, eps, y_ND, r_N):  # type: ignore[no-untyped-def]
    n, d = x_ND.shape
    for i in range(n):
        x_D, y_D = x_ND[i], y_ND[i]
        r = float32(1.0) / np.sqrt(shifted_dot(x_D, x_D, float32(0.0)) / float32(d) + eps)
        for j in range(d):
            y_D[j] = x_D[j] * r * w_D[j]
        r_N[i] = r


@compiled(void(reads(2), reads(2), reads(1), reads(1), writes(2), writes(1)))
def _backward(dy_ND, x_ND, w_D, r_N, dx_ND, dw_D):  # type: ignore[no-untyped-def]
    n, d = x_ND.shape
    for i in range(n):
        dy_D, x_D, dx_D, r = dy_ND[i], x_ND[i], dx_ND[i], r_N[i]
        for j in range(d):
            dw_D[j] += dy_D[j] * (x_D[j] * r)  # undo y = n * w
            dx_D[j] = dy_D[j] * w_D[j]
        along = shifted_dot(dx_D, x_D, float32(0.0)) * r / float32(d)
        for j in range(d):
            dx_D[j] = (dx_D[j] - x_D[j] * r * along) * r  # undo n = x * r
