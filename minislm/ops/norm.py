"""Layer norm and RMS norm, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np


def layer_norm(x_ND: np.ndarray, w_D: np.ndarray, b_D: np.ndarray, *, eps: float) -> tuple[np.ndarray, Any]:
    """Centre every row, divide it by its standard deviation, then scale and shift it."""
    mean_N = x_ND.mean(axis=-1)
    n_ND = x_ND - mean_N[:, None]
    r_N = 1.0 / np.sqrt(np.vecdot(n_ND, n_ND) / n_ND.shape[1] + eps)
    n_ND *= r_N[:, None]
    y_ND = n_ND * w_D
    y_ND += b_D
    return y_ND, (x_ND, w_D, mean_N, r_N)


def layer_norm_backward(dy_ND: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients of `layer_norm`'s `x`, `w` and `b`."""
    x_ND, w_D, mean_N, r_N = saved
    n_ND = (x_ND - mean_N[:, None]) * r_N[:, None]  # recomputed: cheaper than N*D floats kept
    db_D = dy_ND.sum(axis=0)  # undo y += b
    dw_D = (dy_ND * n_ND).sum(axis=0)  # undo y = n * w
    dx_ND = dy_ND * w_D  # undo y = n * w
    along_N = np.vecdot(dx_ND, n_ND) / n_ND.shape[1]
    n_ND *= along_N[:, None]
    dx_ND -= n_ND  # undo n *= r, r depending on n
    dx_ND -= dx_ND.mean(axis=-1, keepdims=True)  # undo n = x - mean
    dx_ND *= r_N[:, None]  # undo n *= r
    return dx_ND, dw_D, db_D


def rms_norm(x_ND: np.ndarray, w_D: np.ndarray, *, eps: float) -> tuple[np.ndarray, Any]:
    """Divide every row by its root mean square, then scale it."""
    r_N = 1.0 / np.sqrt(np.vecdot(x_ND, x_ND) / x_ND.shape[1] + eps)
    y_ND = x_ND * r_N[:, None]
    y_ND *= w_D
    return y_ND, (x_ND, w_D, r_N)


def rms_norm_backward(dy_ND: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients of `rms_norm`'s `x` and `w`."""
    x_ND, w_D, r_N = saved
    n_ND = x_ND * r_N[:, None]  # recomputed: cheaper than N*D floats kept
    dw_D = (dy_ND * n_ND).sum(axis=0)  # undo y = n * w
    dx_ND = dy_ND * w_D  # undo y = n * w
    along_N = np.vecdot(dx_ND, n_ND) / n_ND.shape[1]
    n_ND *= along_N[:, None]
    dx_ND -= n_ND  # undo n = x * r, r depending on x
    dx_ND *= r_N[:, None]  # undo n = x * r
    return dx_ND, dw_D
