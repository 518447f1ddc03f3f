"""Products with a matrix and the other affine maps, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np


def linear(x_NI: np.ndarray, w_OI: np.ndarray, b_O: np.ndarray | None = None) -> tuple[np.ndarray, Any]:
    """Multiply rows by a matrix stored outputs x inputs, and add a bias."""
    y_NO = x_NI @ w_OI.T
    if b_O is not None:
        y_NO += b_O
    return y_NO, (x_NI, w_OI, b_O is not None)


def linear_backward(dy_NO: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return the gradients of `linear`'s `x`, `w` and `b`."""
    x_NI, w_OI, biased = saved
    db_O = dy_NO.sum(axis=0) if biased else None  # undo y += b
    return linear_dx(dy_NO, w_OI), linear_dw(dy_NO, x_NI), db_O  # undo y = x @ w.T


def linear_dx(dy_NO: np.ndarray, w_OI: np.ndarray) -> np.ndarray:
    """Return the gradient of `linear`'s input."""
    dx_NI: np.ndarray = dy_NO @ w_OI  # undo y = x @ w.T
    return dx_NI


def linear_dw(dy_NO: np.ndarray, x_NI: np.ndarray) -> np.ndarray:
    """Return the gradient of `linear`'s matrix."""
    dw_OI: np.ndarray = dy_NO.T @ x_NI  # undo y = x @ w.T
    return dw_OI


def add(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Add two arrays of one shape."""
    z: np.ndarray = x + y
    return z


def add_bias(x_NO: np.ndarray, b_O: np.ndarray) -> np.ndarray:
    """Add one vector to every row."""
    y_NO: np.ndarray = x_NO + b_O
    return y_NO


def scale(x_NI: np.ndarray, s_I: np.ndarray) -> np.ndarray:
    """Multiply every row by one vector, entry by entry."""
    y_NI: np.ndarray = x_NI * s_I
    return y_NI
