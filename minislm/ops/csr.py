"""Products with compressed sparse rows: each stored value with its column.

Good above about 75 % zeros. Rows are put in place a tile at a time and multiplied by BLAS; kernels visit only what is
stored. Where a `format` is given, `values` is one packed row of codes with its `scales` (and `zeros`).
"""

from __future__ import annotations

import numpy as np

from minislm.ops.bitmap import stream_reader
from minislm.ops.formats import Format
from minislm.ops.tiles import Decode, product_by_tiles, product_t_by_tiles, rows_by_tiles


def csr_product(
    x_NI: np.ndarray,
    values: np.ndarray,
    columns: np.ndarray,
    starts: np.ndarray,
    scales: np.ndarray | None = None,
    zeros: np.ndarray | None = None,
    *,
    format: Format | None = None,
) -> np.ndarray:
    """Multiply rows by the transpose of a matrix of compressed rows.

    Parameters
    ----------
    x_NI : ndarray, (N, I), float32 or float64
        Input rows.
    values : ndarray, (stored,), float32 or float64, or (1, packed), uint8
        The stored values, row by row.
    columns : ndarray, (stored,), int32
        The input that each value belongs to, increasing within a row.
    starts : ndarray, (O + 1,), int64
        Where each row's values begin, and where the last one's end.
    scales, zeros : ndarray, (1, J), optional
        Those of quantized values, whose groups run along the stream of values.
    format : Format, optional
        The format of quantized values.

    Returns
    -------
    ndarray, (N, O)
        In the dtype of `x_NI`.

    Notes
    -----
    ``y[n, o] = sum of x[n, i] * w[o, i] over the stored (o, i)``: two operations for each stored value and row of x;
    reads four bytes and a value for each stored entry, so it pays above about 75 % zeros. Accumulates in the dtype of
    `x_NI`; rows are put in place in tiles of at most 1 MiB.

    References
    ----------
    Y. Saad, "Iterative Methods for Sparse Linear Systems", 2nd edition, 2003, section 3.4 (the format).

    Examples
    --------
    >>> import numpy as np
    >>> values, columns, starts = pack_csr(np.array([[0.0, 2.0, 3.0]]), np.array([[False, True, True]]))
    >>> csr_product(np.array([[1.0, 10.0, 100.0]]), values, columns, starts)
    array([[320.]])
    """
    decode = _csr_decoder(values, columns, starts, scales, zeros, format=format, n_inputs=x_NI.shape[1])
    return product_by_tiles(x_NI, len(starts) - 1, decode)


def csr_product_t(
    dy_NO: np.ndarray,
    values: np.ndarray,
    columns: np.ndarray,
    starts: np.ndarray,
    scales: np.ndarray | None = None,
    zeros: np.ndarray | None = None,
    *,
    n_inputs: int,
    format: Format | None = None,
) -> np.ndarray:
    """Multiply rows by a matrix of compressed rows: the gradient of `csr_product`'s input.

    Parameters
    ----------
    dy_NO : ndarray, (N, O), float32 or float64
        Gradient of the output.
    values, columns, starts, scales, zeros : ndarray
        As of `csr_product`.
    n_inputs : int
        Columns of the matrix, I.
    format : Format, optional
        As of `csr_product`.

    Returns
    -------
    ndarray, (N, I)
        In the dtype of `dy_NO`.

    Notes
    -----
    ``dx[n, i] = sum of dy[n, o] * w[o, i] over the stored (o, i)``, at the cost of `csr_product`.

    References
    ----------
    As of `csr_product`.

    Examples
    --------
    >>> import numpy as np
    >>> values, columns, starts = pack_csr(np.array([[0.0, 2.0, 3.0]]), np.array([[False, True, True]]))
    >>> csr_product_t(np.array([[2.0]]), values, columns, starts, n_inputs=3)
    array([[0., 4., 6.]])
    """
    return product_t_by_tiles(
        dy_NO, n_inputs, _csr_decoder(values, columns, starts, scales, zeros, format=format, n_inputs=n_inputs)
    )


def csr_rows(
    ids_N: np.ndarray,
    values: np.ndarray,
    columns: np.ndarray,
    starts: np.ndarray,
    scales: np.ndarray | None = None,
    zeros: np.ndarray | None = None,
    *,
    n_inputs: int,
    format: Format | None = None,
) -> np.ndarray:
    """Look rows of a matrix of compressed rows up.

    Parameters
    ----------
    ids_N : ndarray, (N,), int64
        Wanted rows.
    values, columns, starts, scales, zeros : ndarray
        As of `csr_product`.
    n_inputs : int
        Columns of the matrix, I.
    format : Format, optional
        As of `csr_product`.

    Returns
    -------
    ndarray, (N, I)
        Row ``ids[n]`` at place n, in the dtype of the values (float32 if they are quantized).

    Notes
    -----
    Nothing is computed but the values themselves. Rows are put in place by ranges, and ranges without a wanted row
    are skipped.

    References
    ----------
    As of `csr_product`.

    Examples
    --------
    >>> import numpy as np
    >>> values, columns, starts = pack_csr(np.array([[0.0, 2.0, 3.0]]), np.array([[False, True, True]]))
    >>> csr_rows(np.array([0]), values, columns, starts, n_inputs=3)
    array([[0., 2., 3.]])
    """
    decode = _csr_decoder(values, columns, starts, scales, zeros, format=format, n_inputs=n_inputs)
    dtype = values.dtype if format is None else np.dtype(np.float32)
    return rows_by_tiles(ids_N, len(starts) - 1, n_inputs, dtype, decode)


def pack_csr(w_OI: np.ndarray, mask_OI: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keep the masked entries of a matrix.

    Parameters
    ----------
    w_OI : ndarray, (O, I)
        The matrix.
    mask_OI : ndarray, (O, I), bool
        True where an entry is kept.

    Returns
    -------
    values : ndarray, (stored,)
        Kept entries, row by row.
    columns : ndarray, (stored,), int32
        The input that each belongs to.
    starts : ndarray, (O + 1,), int64
        Where each row's values begin, and where the last one's end.
    """
    starts = np.zeros(len(w_OI) + 1, np.int64)
    np.cumsum(mask_OI.sum(1), out=starts[1:])
    return w_OI[mask_OI], np.nonzero(mask_OI)[1].astype(np.int32), starts


def _csr_decoder(
    values: np.ndarray,
    columns: np.ndarray,
    starts: np.ndarray,
    scales: np.ndarray | None,
    zeros: np.ndarray | None,
    *,
    format: Format | None,
    n_inputs: int,
) -> Decode:
    """Return the function that puts a range of rows in place."""
    read = stream_reader(values, scales, zeros, format)

    def decode(rows: slice) -> np.ndarray:
        first, last = starts[rows.start], starts[rows.stop]
        kept = read(first, last)
        n_rows = rows.stop - rows.start
        tile = np.zeros((n_rows, n_inputs), kept.dtype)
        sizes = np.diff(starts[rows.start : rows.stop + 1])
        tile[np.repeat(np.arange(n_rows), sizes), columns[first:last]] = kept
        return tile

    return decode
