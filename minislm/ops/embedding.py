"""Rows of a table by their ids."""

from __future__ import annotations

import numpy as np

Saved = tuple[np.ndarray, int]


def embedding(ids_N: np.ndarray, w_VD: np.ndarray) -> tuple[np.ndarray, Saved]:
    """Look up one row of a table for every id.

    Parameters
    ----------
    ids_N : ndarray of int, (N,)
        Row numbers, from 0 to V - 1.
    w_VD : ndarray, (V, D), float32 or float64
        Table.

    Returns
    -------
    x_ND : ndarray, (N, D)
        A copy of the rows.
    saved : tuple
        ``(ids_N, V)``, for `embedding_backward`.

    Notes
    -----
    ::

        xₙ = w[iₙ]

    The product of one-hot rows with the table, without the product: N D numbers are copied, nothing is computed.

    References
    ----------
    Bengio, Ducharme, Vincent and Jauvin 2003, "A Neural Probabilistic Language Model", JMLR 3, section 2 (its
    matrix C).

    Examples
    --------
    >>> x_ND, saved = embedding(np.array([2, 0]), np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    >>> x_ND
    array([[5., 6.],
           [1., 2.]])
    """
    x_ND = w_VD[ids_N]
    return x_ND, (ids_N, len(w_VD))


def embedding_backward(dx_ND: np.ndarray, saved: Saved) -> np.ndarray:
    """Return the gradient of `embedding`'s table.

    Parameters
    ----------
    dx_ND : ndarray, (N, D)
        Gradient of `embedding`'s result.
    saved : tuple
        What `embedding` saved.

    Returns
    -------
    ndarray, (V, D)
        Each row the sum of the gradients of all places where it was looked up; zero where it was not.

    Notes
    -----
    ::

        dw[v] = Σ dxₙ over all n with iₙ = v

    N D additions, one row after the other, in the dtype of `dx`.

    Examples
    --------
    >>> embedding_backward(np.array([[1.0], [10.0], [100.0]]), (np.array([2, 0, 2]), 3))
    array([[ 10.],
           [  0.],
           [101.]])
    """
    ids_N, n_rows = saved
    dw_VD = np.zeros((n_rows, dx_ND.shape[1]), dx_ND.dtype)
    np.add.at(dw_VD, ids_N, dx_ND)  # undo x = w[ids]
    return dw_VD
