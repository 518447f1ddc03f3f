"""Softmax over rows, and its logarithm."""

from __future__ import annotations

import numpy as np

Saved = tuple[np.ndarray]


def softmax(x_NV: np.ndarray) -> tuple[np.ndarray, Saved]:
    """Turn every row into probabilities.

    Parameters
    ----------
    x_NV : ndarray, (N, V), float32 or float64
        Logits; -inf means impossible.

    Returns
    -------
    p_NV : ndarray, (N, V)
        Probabilities; a row of nothing but -inf gives zeros.
    saved : tuple
        ``(p_NV,)``, for `softmax_backward`.

    Notes
    -----
    ::

        pᵥ = exp(xᵥ - max x) / Σᵤ exp(xᵤ - max x)

    The maximum changes nothing but the range: no exponential is above 1, none overflows. About 4 N V operations; sums
    in the dtype of `x`.

    References
    ----------
    Milakov and Gimelshein 2018, arXiv:1805.02867, algorithm 2.

    Examples
    --------
    >>> p_NV, saved = softmax(np.array([[0.0, np.log(3.0)], [1000.0, -np.inf], [-np.inf, -np.inf]]))
    >>> p_NV
    array([[0.25, 0.75],
           [1.  , 0.  ],
           [0.  , 0.  ]])
    """
    p_NV = x_NV - row_max(x_NV)
    np.exp(p_NV, out=p_NV)
    p_NV /= nonzero(p_NV.sum(axis=-1, keepdims=True))
    return p_NV, (p_NV,)


def softmax_backward(dp_NV: np.ndarray, saved: Saved) -> np.ndarray:
    """Return the gradient of `softmax`'s logits.

    Parameters
    ----------
    dp_NV : ndarray, (N, V)
        Gradient of the probabilities.
    saved : tuple
        What `softmax` saved.

    Returns
    -------
    ndarray, (N, V)
        Gradient of the logits; zero where a probability is.

    Notes
    -----
    ::

        dxᵥ = pᵥ (dpᵥ - Σᵤ pᵤ dpᵤ)

    About 4 N V operations. It needs the result only, not the logits.

    Examples
    --------
    >>> softmax_backward(np.array([[1.0, 0.0]]), (np.array([[0.25, 0.75]]),))
    array([[ 0.1875, -0.1875]])
    """
    (p_NV,) = saved
    along_N = np.vecdot(dp_NV, p_NV)
    dx_NV: np.ndarray = dp_NV - along_N[:, None]  # undo p /= sum(p)
    dx_NV *= p_NV  # undo p = exp(x - max)
    return dx_NV


def log_softmax(x_NV: np.ndarray) -> np.ndarray:
    """Return the logarithm of `softmax`, keeping apart probabilities too small for the dtype.

    Parameters
    ----------
    x_NV : ndarray, (N, V), float32 or float64
        Logits.

    Returns
    -------
    ndarray, (N, V)
        Log-probabilities, in nats.

    Examples
    --------
    >>> log_softmax(np.array([[0.0, -2000.0]]))
    array([[    0., -2000.]])
    """
    log_p_NV: np.ndarray = x_NV - row_max(x_NV)
    log_p_NV -= np.log(nonzero(np.exp(log_p_NV).sum(axis=-1, keepdims=True)))
    return log_p_NV


def row_max(x: np.ndarray) -> np.ndarray:
    """Return what to subtract from each row before the exponential: its largest entry.

    Parameters
    ----------
    x : ndarray, (..., V)
        Rows.

    Returns
    -------
    ndarray, (..., 1)
        Largest entries; 0 for a row of nothing but -inf, because -inf - -inf is not a number.

    Examples
    --------
    >>> row_max(np.array([[1.0, 2.0], [-np.inf, -np.inf]]))
    array([[2.],
           [0.]])
    """
    top: np.ndarray = x.max(axis=-1, keepdims=True, initial=-np.inf)
    top[top == -np.inf] = 0.0
    return top


def nonzero(total: np.ndarray) -> np.ndarray:
    """Return sums to divide by: 1 in place of 0, so that a row of zeros stays one.

    Parameters
    ----------
    total : ndarray
        Sums; changed in place.

    Returns
    -------
    ndarray
        The same array.

    Examples
    --------
    >>> nonzero(np.array([2.0, 0.0]))
    array([2., 1.])
    """
    total[total == 0.0] = 1.0
    return total
