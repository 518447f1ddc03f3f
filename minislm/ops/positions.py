"""Positions as sines and cosines, added to embeddings by models that learn no positions."""

from __future__ import annotations

import numpy as np


def sinusoidal_positions(n: int, d: int, *, interleaved: bool = True) -> np.ndarray:
    """Return a table with a row of sines and cosines for every position.

    Parameters
    ----------
    n : int
        Number of positions.
    d : int
        Width of a row.
    interleaved : bool
        Whether sines and cosines alternate; False: all sines, then all cosines.

    Returns
    -------
    ndarray of float32, (n, d)
        The table.

    Notes
    -----
    ::

        p[t, 2 i]     = sin(t 10000^(-2 i / d))
        p[t, 2 i + 1] = cos(t 10000^(-2 i / d))

    or the same columns in another order, first the even ones.
    Each pair of columns is the hand of a clock; the hands of later columns go slower. Computed in float64.

    References
    ----------
    Vaswani et al. 2017, arXiv:1706.03762, section 3.5. The other order is that of Marian: Junczys-Dowmunt et al. 2018,
    arXiv:1804.00344.

    Examples
    --------
    >>> sinusoidal_positions(2, 4).round(4)
    array([[0.    , 1.    , 0.    , 1.    ],
           [0.8415, 0.5403, 0.01  , 1.    ]], dtype=float32)
    """
    angles = np.arange(n)[:, None] * 10000.0 ** (-np.arange(0, d, 2) / d)
    p_TD = np.empty((n, d), np.float32)
    sines, cosines = (slice(0, d, 2), slice(1, d, 2)) if interleaved else (slice(-(-d // 2)), slice(-(-d // 2), d))
    p_TD[:, sines] = np.sin(angles)
    p_TD[:, cosines] = np.cos(angles[:, : d // 2])
    return p_TD
