"""The product with a matrix of low rank, kept as two thin factors."""

from __future__ import annotations

import numpy as np


def low_rank_product(x_NI: np.ndarray, right_RI: np.ndarray, left_OR: np.ndarray) -> np.ndarray:
    """Multiply by the transpose of ``left @ right`` without making that matrix.

    Parameters
    ----------
    x_NI : ndarray, (N, I), float32 or float64
        Input rows.
    right_RI : ndarray, (R, I)
        The factor that reads the input.
    left_OR : ndarray, (O, R)
        The factor that writes the output.

    Returns
    -------
    ndarray, (N, O)
        ``(x @ right.T) @ left.T``.

    Notes
    -----
    ``y[n, o] = sum_r left[o, r] * sum_i right[r, i] * x[n, i]``. 2NR(O + I) operations instead of 2NOI: worth it for
    ``R < OI / (O + I)``. Both sums accumulate in the dtype of the arrays.

    References
    ----------
    E. Denton et al., "Exploiting Linear Structure Within Convolutional Networks for Efficient Evaluation", 2014,
    arXiv 1404.0736, section 3; E. Hu et al., "LoRA", 2021, arXiv 2106.09685, equation 3 (the added product).

    Examples
    --------
    >>> import numpy as np
    >>> low_rank_product(np.array([[1.0, 2.0]]), right_RI=np.array([[1.0, 1.0]]), left_OR=np.array([[1.0], [10.0]]))
    array([[ 3., 30.]])
    """
    y_NO: np.ndarray = (x_NI @ right_RI.T) @ left_OR.T
    return y_NO
