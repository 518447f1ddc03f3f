"""Layer norm and RMS norm: every row brought to one size."""

from __future__ import annotations

import numpy as np

LayerNormSaved = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
RmsNormSaved = tuple[np.ndarray, np.ndarray, np.ndarray]


def layer_norm(x_ND: np.ndarray, w_D: np.ndarray, b_D: np.ndarray, *, eps: float) -> tuple[np.ndarray, LayerNormSaved]:
    """Centre every row, divide it by its standard deviation, then scale and shift it.

    Parameters
    ----------
    x_ND : ndarray, (N, D), float32 or float64
        Rows; their squares must not overflow.
    w_D : ndarray, (D,)
        Scale.
    b_D : ndarray, (D,)
        Shift.
    eps : float
        Added to the variance, so that a constant row is not divided by zero.

    Returns
    -------
    y_ND : ndarray, (N, D)
        Normalised rows.
    saved : tuple
        ``(x_ND, w_D, mean_N, r_N)`` with the reciprocal standard deviations `r_N`, for `layer_norm_backward`.

    Notes
    -----
    ::

        n = (x - mean(x)) / √(var(x) + eps)
        y = w n + b

    The variance is that of the centred row (two passes), over D and not D - 1. About 8 N D operations; sums in the
    dtype of `x`.

    References
    ----------
    Ba, Kiros and Hinton 2016, arXiv:1607.06450, equations 3 and 4.

    Examples
    --------
    >>> y_ND, saved = layer_norm(np.array([[1.0, 3.0]]), np.array([1.0, 2.0]), np.array([0.0, 0.5]), eps=0.0)
    >>> y_ND
    array([[-1. ,  2.5]])
    """
    mean_N = x_ND.mean(axis=-1)
    n_ND = x_ND - mean_N[:, None]
    r_N = 1.0 / np.sqrt(np.vecdot(n_ND, n_ND) / x_ND.shape[1] + eps)
    n_ND *= r_N[:, None]
    y_ND = n_ND * w_D
    y_ND += b_D
    return y_ND, (x_ND, w_D, mean_N, r_N)


def layer_norm_backward(dy_ND: np.ndarray, saved: LayerNormSaved) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients of `layer_norm`'s arguments.

    Parameters
    ----------
    dy_ND : ndarray, (N, D)
        Gradient of `layer_norm`'s result.
    saved : tuple
        What `layer_norm` saved.

    Returns
    -------
    dx_ND : ndarray, (N, D)
        Gradient of the rows.
    dw_D : ndarray, (D,)
        Gradient of the scale.
    db_D : ndarray, (D,)
        Gradient of the shift.

    Notes
    -----
    With means taken over the row::

        dn = w dy
        dx = r (dn - mean(dn) - n mean(dn n))      dw = Σₙ dy n      db = Σₙ dy

    What is subtracted is the part of `dn` along the two directions that the norm removed, the constant row and the row
    itself: moving `x` along them does not change `n`. About 14 N D operations.

    Examples
    --------
    >>> _, saved = layer_norm(np.array([[1.0, 2.0, 6.0]]), np.ones(3), np.zeros(3), eps=0.0)
    >>> dx_ND, dw_D, db_D = layer_norm_backward(np.array([[1.0, 0.0, 0.0]]), saved)
    >>> bool(np.abs(dx_ND @ np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 6.0]])).max() < 1e-12)
    True
    """
    x_ND, w_D, mean_N, r_N = saved
    n_ND = (x_ND - mean_N[:, None]) * r_N[:, None]  # recomputed: 2 N D operations instead of N D numbers kept
    db_D = dy_ND.sum(axis=0)  # undo y += b
    dw_D = (dy_ND * n_ND).sum(axis=0)  # undo y = n * w
    dx_ND = dy_ND * w_D  # undo y = n * w, this is dn
    along_N = np.vecdot(dx_ND, n_ND) / x_ND.shape[1]
    n_ND *= along_N[:, None]
    dx_ND -= n_ND  # undo r = 1 / sqrt(mean(n * n) + eps)
    dx_ND *= r_N[:, None]  # undo n *= r
    dx_ND -= dx_ND.mean(axis=-1, keepdims=True)  # undo n = x - mean
    return dx_ND, dw_D, db_D


def rms_norm(x_ND: np.ndarray, w_D: np.ndarray, *, eps: float) -> tuple[np.ndarray, RmsNormSaved]:
    """Divide every row by its root mean square, then scale it.

    Parameters
    ----------
    x_ND : ndarray, (N, D), float32 or float64
        Rows; their squares must not overflow.
    w_D : ndarray, (D,)
        Scale.
    eps : float
        Added to the mean square, so that a row of zeros is not divided by zero.

    Returns
    -------
    y_ND : ndarray, (N, D)
        Normalised rows.
    saved : tuple
        ``(x_ND, w_D, r_N)`` with the reciprocal root mean squares `r_N`, for `rms_norm_backward`.

    Notes
    -----
    ::

        n = x / √(mean(x²) + eps)
        y = w n

    Layer norm without centring and shift. About 4 N D operations; sums in the dtype of `x`.

    References
    ----------
    Zhang and Sennrich 2019, arXiv:1910.07467, equation 4.

    Examples
    --------
    >>> y_ND, saved = rms_norm(np.array([[1.0, 7.0]]), np.array([5.0, 1.0]), eps=0.0)
    >>> y_ND
    array([[1. , 1.4]])
    """
    r_N = 1.0 / np.sqrt(np.vecdot(x_ND, x_ND) / x_ND.shape[1] + eps)
    n_ND = x_ND * r_N[:, None]
    y_ND = np.multiply(n_ND, w_D, out=n_ND)
    return y_ND, (x_ND, w_D, r_N)


def rms_norm_backward(dy_ND: np.ndarray, saved: RmsNormSaved) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients of `rms_norm`'s arguments.

    Parameters
    ----------
    dy_ND : ndarray, (N, D)
        Gradient of `rms_norm`'s result.
    saved : tuple
        What `rms_norm` saved.

    Returns
    -------
    dx_ND : ndarray, (N, D)
        Gradient of the rows.
    dw_D : ndarray, (D,)
        Gradient of the scale.

    Notes
    -----
    With the mean taken over the row::

        dn = w dy
        dx = r (dn - n mean(dn n))      dw = Σₙ dy n

    What is subtracted is the part of `dn` along the row itself: making `x` longer does not change `n`. About 9 N D
    operations.

    Examples
    --------
    >>> _, saved = rms_norm(np.array([[1.0, 7.0]]), np.ones(2), eps=0.0)
    >>> dx_ND, dw_D = rms_norm_backward(np.array([[1.0, 0.0]]), saved)
    >>> bool(np.abs(dx_ND @ np.array([1.0, 7.0])).max() < 1e-12)
    True
    """
    x_ND, w_D, r_N = saved
    n_ND = x_ND * r_N[:, None]  # recomputed: N D operations instead of N D numbers kept
    dw_D = (dy_ND * n_ND).sum(axis=0)  # undo y = n * w
    dx_ND = dy_ND * w_D  # undo y = n * w, this is dn
    along_N = np.vecdot(dx_ND, n_ND) / x_ND.shape[1]
    n_ND *= along_N[:, None]
    dx_ND -= n_ND  # undo r = 1 / sqrt(mean(x * x) + eps)
    dx_ND *= r_N[:, None]  # undo n = x * r
    return dx_ND, dw_D
