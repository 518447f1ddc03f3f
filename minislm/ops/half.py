"""Products with a matrix stored in 16 bits (float16 or bfloat16).

Only the storage is small: the numbers are float32 when they multiply. NumPy has no 16-bit BLAS, and its own loop is
hundreds of times slower than float32, so rows are widened a tile at a time.
"""

from __future__ import annotations

import numpy as np

from minislm.ops.tiles import product_by_tiles, product_t_by_tiles


def half_product(x_NI: np.ndarray, w_OI: np.ndarray) -> np.ndarray:
    """Multiply by the transpose of a 16-bit matrix.

    Parameters
    ----------
    x_NI : ndarray, (N, I), float32 or float64
        Input rows.
    w_OI : ndarray, (O, I), float16 or bfloat16
        The stored matrix.

    Returns
    -------
    ndarray, (N, O)
        ``x @ w.T`` in the dtype of `x_NI`.

    Notes
    -----
    ``y[n, o] = sum_i x[n, i] * w[o, i]``. Widening is exact, so the result is that of a float32 matrix with the same
    numbers. 2NOI operations; reads 2OI bytes of weights instead of 4OI; accumulates in the dtype of `x_NI`.

    References
    ----------
    P. Micikevicius et al., "Mixed Precision Training", 2017, arXiv 1710.03740, section 3.3 (half storage, single
    accumulation).

    Examples
    --------
    >>> import numpy as np
    >>> half_product(np.ones((1, 2), np.float32), np.array([[0.5, 0.25]], np.float16))
    array([[0.75]], dtype=float32)
    """
    return product_by_tiles(x_NI, len(w_OI), lambda rows: w_OI[rows])


def half_product_t(dy_NO: np.ndarray, w_OI: np.ndarray) -> np.ndarray:
    """Multiply by a 16-bit matrix: the gradient of `half_product`'s input.

    Parameters
    ----------
    dy_NO : ndarray, (N, O), float32 or float64
        Gradient of the output.
    w_OI : ndarray, (O, I), float16 or bfloat16
        The stored matrix.

    Returns
    -------
    ndarray, (N, I)
        ``dy @ w`` in the dtype of `dy_NO`.

    Notes
    -----
    ``dx[n, i] = sum_o dy[n, o] * w[o, i]``, at the cost of `half_product`.

    References
    ----------
    P. Micikevicius et al., "Mixed Precision Training", 2017, arXiv 1710.03740, section 3.3.

    Examples
    --------
    >>> import numpy as np
    >>> half_product_t(np.ones((1, 1), np.float32), np.array([[0.5, 0.25]], np.float16))
    array([[0.5 , 0.25]], dtype=float32)
    """
    return product_t_by_tiles(dy_NO, w_OI.shape[1], lambda rows: w_OI[rows])
