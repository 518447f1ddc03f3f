"""Products with a matrix that is decoded a few rows at a time, so that the whole of it never stands in memory.

Every compressed storage multiplies this way: a function decodes some rows, BLAS multiplies them, the next rows take
their place. What is alive at once is one tile of at most `TILE_BYTES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

TILE_BYTES = 2**20
"""Most bytes of decoded rows alive at once: 1 MiB, which a second cache holds. A longer row is an exception."""

Decode = Callable[[slice], np.ndarray]
"""Given a range of rows, returns these rows of the matrix, (rows, I)."""


def row_tiles(n_rows: int, row_bytes: int) -> Iterator[slice]:
    """Cut rows into consecutive ranges of at most `TILE_BYTES`.

    Parameters
    ----------
    n_rows : int
        How many rows there are.
    row_bytes : int
        Bytes of one decoded row.

    Yields
    ------
    slice
        The next range, with plain bounds; together they cover every row once.

    Examples
    --------
    >>> [(rows.start, rows.stop) for rows in row_tiles(5, row_bytes=2**19)]
    [(0, 2), (2, 4), (4, 5)]
    """
    step = max(1, TILE_BYTES // max(1, row_bytes))
    for first in range(0, n_rows, step):
        yield slice(first, min(first + step, n_rows))


def product_by_tiles(x_NI: np.ndarray, n_outputs: int, decode: Decode) -> np.ndarray:
    """Multiply by the transpose of a matrix that `decode` makes row by row.

    Parameters
    ----------
    x_NI : ndarray, (N, I), float32 or float64
        Rows to multiply.
    n_outputs : int
        Rows of the matrix, O.
    decode : callable
        Returns the rows of a range, (rows, I).

    Returns
    -------
    ndarray, (N, O)
        ``x @ W.T`` in the dtype of `x_NI`, which is also what accumulates.
    """
    y_NO = np.empty((len(x_NI), n_outputs), x_NI.dtype)
    for rows in row_tiles(n_outputs, x_NI.shape[1] * x_NI.itemsize):
        y_NO[:, rows] = x_NI @ decode(rows).astype(x_NI.dtype, copy=False).T
    return y_NO


def product_t_by_tiles(dy_NO: np.ndarray, n_inputs: int, decode: Decode) -> np.ndarray:
    """Multiply by a matrix that `decode` makes row by row: the gradient of `product_by_tiles`' input.

    Parameters
    ----------
    dy_NO : ndarray, (N, O), float32 or float64
        Rows to multiply.
    n_inputs : int
        Columns of the matrix, I.
    decode : callable
        Returns the rows of a range, (rows, I).

    Returns
    -------
    ndarray, (N, I)
        ``dy @ W`` in the dtype of `dy_NO`; tiles are added in order.
    """
    dx_NI = np.zeros((len(dy_NO), n_inputs), dy_NO.dtype)
    for rows in row_tiles(dy_NO.shape[1], n_inputs * dy_NO.itemsize):
        dx_NI += dy_NO[:, rows] @ decode(rows).astype(dy_NO.dtype, copy=False)
    return dx_NI


def rows_by_tiles(ids_N: np.ndarray, n_outputs: int, n_inputs: int, dtype: np.dtype, decode: Decode) -> np.ndarray:
    """Look rows up in a matrix that can only be decoded by ranges; ranges without a wanted row are skipped.

    Parameters
    ----------
    ids_N : ndarray, (N,), int64
        Wanted rows, in any order, repeated at will.
    n_outputs, n_inputs : int
        Rows and columns of the matrix.
    dtype : dtype
        What the result is made of.
    decode : callable
        Returns the rows of a range, (rows, I).

    Returns
    -------
    ndarray, (N, I)
        Row ``ids[n]`` at place n.
    """
    w_NI = np.empty((len(ids_N), n_inputs), dtype)
    for rows in row_tiles(n_outputs, n_inputs * w_NI.itemsize):
        wanted_N = (rows.start <= ids_N) & (ids_N < rows.stop)
        if wanted_N.any():
            w_NI[wanted_N] = decode(rows)[ids_N[wanted_N] - rows.start]
    return w_NI
