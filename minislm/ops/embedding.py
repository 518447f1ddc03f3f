"""Rows of a table by their ids, and the scatter-add that undoes it."""

from __future__ import annotations

from typing import Any

import numpy as np


def embedding(ids_N: np.ndarray, w_VD: np.ndarray) -> tuple[np.ndarray, Any]:
    """Look up one row of the table for every id."""
    x_ND = w_VD[ids_N]
    return x_ND, (ids_N, len(w_VD))


def embedding_backward(dx_ND: np.ndarray, saved: Any) -> np.ndarray:
    """Return the gradient of `embedding`'s table."""
    ids_N, n_rows = saved
    dw_VD = np.zeros((n_rows, dx_ND.shape[1]), dx_ND.dtype)
    order_N = np.argsort(ids_N, kind="stable")
    used, starts = np.unique(ids_N[order_N], return_index=True)
    if len(used):
        dw_VD[used] = np.add.reduceat(dx_ND[order_N], starts, axis=0)  # undo x = w[ids]
    return dw_VD
