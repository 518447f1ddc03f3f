"""Layer norm in compiled loops: each row is centred, measured and scaled while it is in the nearest cache."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, void

from minislm.kernels import border
from minislm.kernels.jit import compiled, reads, shifted_dot, summed, writes


def layer_norm(
    x_ND: np.ndarray, w_D: np.ndarray, b_D: np.ndarray, *, eps: float, out: np.ndarray | None = None, threads: int = 1
) -> tuple[np.ndarray, Any]:
    """Same as `ops.norm.layer_norm`."""
    x, w, b = border.checked(x_ND, "x", 2), border.checked(w_D, "w", 1), border.checked(b_D, "b", 1)
    border.same_shape(w, "w", x.shape[1:])
    border.same_shape(b, "b", x.shape[1:])
    y = border.output(out, x.shape, x, w, b)
    mean, r = np.empty(len(x), np.float32), np.empty(len(x), np.float32)
    _forward(x, w, b, eps, y, mean, r)
    return border.delivered(y, out), (x, w, mean, r)


def layer_norm_backward(
    dy_ND: np.ndarray, saved: Any, *, out: np.ndarray | None = None, threads: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Same as `ops.norm.layer_norm_backward`."""
    x_ND, w_D, mean_N, r_N = saved
    dy, x, w = border.checked(dy_ND, "dy", 2), border.checked(x_ND, "x", 2), border.checked(w_D, "w", 1)
    mean, r = border.checked(mean_N, "mean", 1), border.checked(r_N, "r", 1)
    border.same_shape(dy, "dy", x.shape)
    border.same_shape(w, "w", x.shape[1:])
    border.same_shape(mean, "mean", x.shape[:1])
    border.same_shape(r, "r", x.shape[:1])
    dx = border.output(out, x.shape, dy, x, w, mean, r)
    dw, db = np.zeros_like(w), np.zeros_like(w)
    _backward(dy, x, w, mean, r, dx, dw, db)
    return border.delivered(dx, out), dw, db


@compiled(void(reads(2), reads(1), reads(1), float32, writes(2), writes(1), writes(1)))
def _forward(x_ND, w_D, b_D, eps, y_ND, mean_N, r_N):  # type: ignore[no-untyped-def]
    n, d = x_ND.shape
    for i in range(n):
        x_D, y_D = x_ND[i], y_ND[i]
        mean = summed(x_D) / float32(d)
        for j in range(d):
            y_D[j] = x_D[j] - mean
        r = float32(1.0) / np.sqrt(shifted_dot(y_D, y_D, float32(0.0)) / float32(d) + eps)
        for j in range(d):
            y_D[j] = y_D[j] * r * w_D[j] + b_D[j]
        mean_N[i] = mean
        r_N[i] = r


@compiled(void(reads(2), reads(2), reads(1), reads(1), reads(1), writes(2), writes(1), writes(1)))
def _backward(dy_ND, x_ND, w_D, mean_N, r_N, dx_ND, dw_D, db_D):  # type: ignore[no-untyped-def]
    n, d = x_ND.shape
    for i in range(n):
        dy_D, x_D, dx_D, mean, r = dy_ND[i], x_ND[i], dx_ND[i], mean_N[i], r_N[i]
        for j in range(d):
            db_D[j] += dy_D[j]  # undo y += b
            dw_D[j] += dy_D[j] * ((x_D[j] - mean) * r)  # undo y = n * w
            dx_D[j] = dy_D[j] * w_D[j]
        along = shifted_dot(dx_D, x_D, mean) * r / float32(d)
        for j in range(d):
            dx_D[j] = (dx_D[j] - (x_D[j] - mean) * r * along) * r  # undo n *= r
        middle = summed(dx_D) / float32(d)
        for j in range(d):
            dx_D[j] -= middle  # undo n = x - mean
