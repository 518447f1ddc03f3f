"""Softmax over rows, forward and backward, and its logarithm."""

from __future__ import annotations

from typing import Any

import numpy as np


def softmax(x_NV: np.ndarray) -> tuple[np.ndarray, Any]:
    """Turn every row into probabilities."""
    p_NV = x_NV - _finite_max(x_NV)
    np.exp(p_NV, out=p_NV)
    p_NV /= _nonzero(p_NV.sum(axis=-1, keepdims=True))
    return p_NV, (p_NV,)


def softmax_backward(dp_NV: np.ndarray, saved: Any) -> np.ndarray:
    """Return the gradient of `softmax`'s `x`."""
    (p_NV,) = saved
    along_N = np.vecdot(dp_NV, p_NV)
    dx_NV = dp_NV - along_N[:, None]
    dx_NV *= p_NV
    return dx_NV


def log_softmax(x_NV: np.ndarray) -> np.ndarray:
    """Return the logarithm of `softmax`, without losing small probabilities."""
    log_p_NV = x_NV - _finite_max(x_NV)
    log_p_NV -= np.log(_nonzero(np.exp(log_p_NV).sum(axis=-1, keepdims=True)))
    return log_p_NV


def _finite_max(x: np.ndarray) -> np.ndarray:
    """Largest entry of each row; 0 for a row of nothing but -inf, from which it could not be subtracted."""
    top = x.max(axis=-1, keepdims=True, initial=-np.inf)
    top[top == -np.inf] = 0.0
    return top


def _nonzero(total: np.ndarray) -> np.ndarray:
    """Totals to divide by: 1 in place of 0, so that a row of zeros stays one."""
    total[total == 0.0] = 1.0
    return total
