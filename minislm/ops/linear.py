"""Products with a matrix, and the other affine maps."""

from __future__ import annotations

import numpy as np

Saved = tuple[np.ndarray, np.ndarray, bool]


def linear(x_NI: np.ndarray, w_OI: np.ndarray, b_O: np.ndarray | None = None) -> tuple[np.ndarray, Saved]:
    """Multiply rows by a matrix that is stored outputs x inputs, and add a bias.

    Parameters
    ----------
    x_NI : ndarray, (N, I), float32 or float64
        Rows.
    w_OI : ndarray, (O, I)
        Matrix.
    b_O : ndarray, (O,), optional
        Bias.

    Returns
    -------
    y_NO : ndarray, (N, O)
        Products.
    saved : tuple
        ``(x_NI, w_OI, whether there is a bias)``, for `linear_backward`.

    Notes
    -----
    ::

        y = x Wᵀ + b

    2 N O I operations; sums over I in the dtype of `x`, in an order that BLAS chooses.

    References
    ----------
    Rumelhart, Hinton and Williams 1986, "Learning representations by back-propagating errors", Nature 323,
    doi:10.1038/323533a0, equation 1.

    Examples
    --------
    >>> y_NO, saved = linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [5.0, 6.0]]), np.array([0.5, 0.0]))
    >>> y_NO
    array([[11.5, 17. ]])
    """
    y_NO = x_NI @ w_OI.T
    if b_O is not None:
        y_NO += b_O
    return y_NO, (x_NI, w_OI, b_O is not None)


def linear_backward(dy_NO: np.ndarray, saved: Saved) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return the gradients of `linear`'s arguments.

    Parameters
    ----------
    dy_NO : ndarray, (N, O)
        Gradient of `linear`'s result.
    saved : tuple
        What `linear` saved.

    Returns
    -------
    dx_NI : ndarray, (N, I)
        Gradient of the rows.
    dw_OI : ndarray, (O, I)
        Gradient of the matrix.
    db_O : ndarray, (O,), or None
        Gradient of the bias, None where there was none.

    Notes
    -----
    ::

        dx = dy W      dW = dyᵀ x      db = Σₙ dyₙ

    Each of the two products costs as much as forward.

    Examples
    --------
    >>> _, saved = linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [5.0, 6.0]]))
    >>> linear_backward(np.array([[1.0, 0.0]]), saved)
    (array([[3., 4.]]), array([[1., 2.],
           [0., 0.]]), None)
    """
    x_NI, w_OI, biased = saved
    db_O = dy_NO.sum(axis=0) if biased else None  # undo y += b
    return linear_dx(dy_NO, w_OI), linear_dw(dy_NO, x_NI), db_O  # undo y = x @ w.T


def linear_dx(dy_NO: np.ndarray, w_OI: np.ndarray) -> np.ndarray:
    """Return the gradient of `linear`'s rows: the product with the matrix, not transposed.

    Parameters
    ----------
    dy_NO : ndarray, (N, O), float32 or float64
        Gradient of `linear`'s result.
    w_OI : ndarray, (O, I)
        Matrix.

    Returns
    -------
    ndarray, (N, I)
        Gradient of the rows.

    Notes
    -----
    ::

        dx = dy W

    2 N O I operations; sums over O in the dtype of `dy`.

    References
    ----------
    Rumelhart, Hinton and Williams 1986, doi:10.1038/323533a0, equation 7.

    Examples
    --------
    >>> linear_dx(np.array([[1.0, 10.0]]), np.array([[3.0, 4.0], [5.0, 6.0]]))
    array([[53., 64.]])
    """
    dx_NI: np.ndarray = dy_NO @ w_OI  # undo y = x @ w.T
    return dx_NI


def linear_dw(dy_NO: np.ndarray, x_NI: np.ndarray) -> np.ndarray:
    """Return the gradient of `linear`'s matrix: each output's gradient times each input, summed over the rows.

    Parameters
    ----------
    dy_NO : ndarray, (N, O), float32 or float64
        Gradient of `linear`'s result.
    x_NI : ndarray, (N, I)
        Rows that `linear` multiplied.

    Returns
    -------
    ndarray, (O, I)
        Gradient of the matrix.

    Notes
    -----
    ::

        dW = dyᵀ x

    2 N O I operations; sums over N in the dtype of `dy`.

    References
    ----------
    Rumelhart, Hinton and Williams 1986, doi:10.1038/323533a0, equation 6.

    Examples
    --------
    >>> linear_dw(np.array([[1.0, 10.0]]), np.array([[3.0, 4.0]]))
    array([[ 3.,  4.],
           [30., 40.]])
    """
    dw_OI: np.ndarray = dy_NO.T @ x_NI  # undo y = x @ w.T
    return dw_OI


def add(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Add two arrays of one shape: the two branches of a residual connection.

    Parameters
    ----------
    x, y : ndarray, any shape
        Terms.

    Returns
    -------
    ndarray
        The sum, of the same shape.

    Notes
    -----
    ::

        z = x + y

    The gradient of the sum is the gradient of both terms, so that there is no backward to write.

    References
    ----------
    He, Zhang, Ren and Sun 2015, arXiv:1512.03385, equation 1.

    Examples
    --------
    >>> add(np.array([1.0, 2.0]), np.array([0.5, 0.5]))
    array([1.5, 2.5])
    """
    z: np.ndarray = x + y
    return z


def add_bias(x_NO: np.ndarray, b_O: np.ndarray) -> np.ndarray:
    """Add one vector to every row.

    Parameters
    ----------
    x_NO : ndarray, (N, O)
        Rows.
    b_O : ndarray, (O,)
        What every row gets.

    Returns
    -------
    ndarray, (N, O)
        Sums.

    Notes
    -----
    ::

        y = x + b

    The gradient of `x` is that of the sum, the gradient of `b` its sum over the rows.

    References
    ----------
    Rumelhart, Hinton and Williams 1986, doi:10.1038/323533a0, equation 1 (the bias as a weight from a unit that is 1).

    Examples
    --------
    >>> add_bias(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([10.0, 20.0]))
    array([[11., 22.],
           [13., 24.]])
    """
    y_NO: np.ndarray = x_NO + b_O
    return y_NO


def scale(x_NI: np.ndarray, s_I: np.ndarray) -> np.ndarray:
    """Multiply every row by one vector, entry by entry: the product with a diagonal matrix.

    Parameters
    ----------
    x_NI : ndarray, (N, I)
        Rows.
    s_I : ndarray, (I,)
        Diagonal.

    Returns
    -------
    ndarray, (N, I)
        Products.

    Notes
    -----
    ::

        y = x diag(s)

    A diagonal matrix is its own transpose, so that the gradient of `x` is this op on the gradient of `y`.

    References
    ----------
    Xiao et al. 2022, arXiv:2211.10438, equation 3 (where such diagonals move the spread of activations into weights).

    Examples
    --------
    >>> scale(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([10.0, 0.5]))
    array([[10.,  1.],
           [30.,  2.]])
    """
    y_NI: np.ndarray = x_NI * s_I
    return y_NI
