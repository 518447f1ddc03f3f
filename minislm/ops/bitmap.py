"""Products with a sparse matrix whose places are a bitmap: one bit for every entry, then the stored values.

Good from about 30 % to 80 % zeros, wherever they are. Rows are put in place a tile at a time and multiplied by BLAS;
kernels visit only what is stored. Where a `format` is given, `values` is one packed row of codes with its `scales`
(and `zeros`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minislm.ops.bits import pack_mask, unpack_mask
from minislm.ops.formats import Format
from minislm.ops.tiles import Decode, product_by_tiles, product_t_by_tiles, rows_by_tiles


def bitmap_product(
    x_NI: np.ndarray,
    mask_OP: np.ndarray,
    values: np.ndarray,
    starts: np.ndarray,
    scales: np.ndarray | None = None,
    zeros: np.ndarray | None = None,
    *,
    format: Format | None = None,
) -> np.ndarray:
    """Multiply rows by the transpose of a bitmap matrix.

    Parameters
    ----------
    x_NI : ndarray, (N, I), float32 or float64
        Input rows.
    mask_OP : ndarray, (O, P), uint8
        Bit i of a row's little-endian bit stream says whether input i is stored.
    values : ndarray, (stored,), float32 or float64, or (1, packed), uint8
        The stored values, row by row.
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
    reads one bit an entry and the stored values. Accumulates in the dtype of `x_NI`; rows are put in place in tiles of
    at most 1 MiB.

    References
    ----------
    S. Han et al., "EIE: Efficient Inference Engine on Compressed Deep Neural Network", 2016, arXiv 1602.01528 (pruned
    matrices multiplied in compressed form).

    Examples
    --------
    >>> import numpy as np
    >>> mask_OP, values, starts = pack_bitmap(np.array([[0.0, 2.0, 3.0]]), np.array([[False, True, True]]))
    >>> bitmap_product(np.array([[1.0, 10.0, 100.0]]), mask_OP, values, starts)
    array([[320.]])
    """
    decode = _bitmap_decoder(mask_OP, values, starts, scales, zeros, format=format, n_inputs=x_NI.shape[1])
    return product_by_tiles(x_NI, len(mask_OP), decode)


def bitmap_product_t(
    dy_NO: np.ndarray,
    mask_OP: np.ndarray,
    values: np.ndarray,
    starts: np.ndarray,
    scales: np.ndarray | None = None,
    zeros: np.ndarray | None = None,
    *,
    n_inputs: int,
    format: Format | None = None,
) -> np.ndarray:
    """Multiply rows by a bitmap matrix: the gradient of `bitmap_product`'s input.

    Parameters
    ----------
    dy_NO : ndarray, (N, O), float32 or float64
        Gradient of the output.
    mask_OP, values, starts, scales, zeros : ndarray
        As of `bitmap_product`.
    n_inputs : int
        Columns of the matrix, I.
    format : Format, optional
        As of `bitmap_product`.

    Returns
    -------
    ndarray, (N, I)
        In the dtype of `dy_NO`.

    Notes
    -----
    ``dx[n, i] = sum of dy[n, o] * w[o, i] over the stored (o, i)``, at the cost of `bitmap_product`.

    References
    ----------
    As of `bitmap_product`.

    Examples
    --------
    >>> import numpy as np
    >>> mask_OP, values, starts = pack_bitmap(np.array([[0.0, 2.0, 3.0]]), np.array([[False, True, True]]))
    >>> bitmap_product_t(np.array([[2.0]]), mask_OP, values, starts, n_inputs=3)
    array([[0., 4., 6.]])
    """
    return product_t_by_tiles(
        dy_NO, n_inputs, _bitmap_decoder(mask_OP, values, starts, scales, zeros, format=format, n_inputs=n_inputs)
    )


def bitmap_rows(
    ids_N: np.ndarray,
    mask_OP: np.ndarray,
    values: np.ndarray,
    starts: np.ndarray,
    scales: np.ndarray | None = None,
    zeros: np.ndarray | None = None,
    *,
    n_inputs: int,
    format: Format | None = None,
) -> np.ndarray:
    """Look rows of a bitmap matrix up.

    Parameters
    ----------
    ids_N : ndarray, (N,), int64
        Wanted rows.
    mask_OP, values, starts, scales, zeros : ndarray
        As of `bitmap_product`.
    n_inputs : int
        Columns of the matrix, I.
    format : Format, optional
        As of `bitmap_product`.

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
    As of `bitmap_product`.

    Examples
    --------
    >>> import numpy as np
    >>> mask_OP, values, starts = pack_bitmap(np.array([[0.0, 2.0, 3.0]]), np.array([[False, True, True]]))
    >>> bitmap_rows(np.array([0]), mask_OP, values, starts, n_inputs=3)
    array([[0., 2., 3.]])
    """
    decode = _bitmap_decoder(mask_OP, values, starts, scales, zeros, format=format, n_inputs=n_inputs)
    dtype = values.dtype if format is None else np.dtype(np.float32)
    return rows_by_tiles(ids_N, len(mask_OP), n_inputs, dtype, decode)


def mask_starts(mask_OP: np.ndarray) -> np.ndarray:
    """Count where each row's values begin.

    Parameters
    ----------
    mask_OP : ndarray, (O, P), uint8
        Packed mask.

    Returns
    -------
    ndarray, (O + 1,), int64
        Row o owns the values from ``starts[o]`` to ``starts[o + 1]``.

    Examples
    --------
    >>> import numpy as np
    >>> mask_starts(np.array([[5], [1]], np.uint8))
    array([0, 2, 3])
    """
    starts = np.zeros(len(mask_OP) + 1, np.int64)
    np.cumsum(np.bitwise_count(mask_OP).sum(1, dtype=np.int64), out=starts[1:])
    return starts


def pack_bitmap(w_OI: np.ndarray, mask_OI: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keep the masked entries of a matrix.

    Parameters
    ----------
    w_OI : ndarray, (O, I)
        The matrix.
    mask_OI : ndarray, (O, I), bool
        True where an entry is kept.

    Returns
    -------
    mask_OP : ndarray, (O, P), uint8
        See `pack_mask`.
    values : ndarray, (stored,)
        Kept entries, row by row.
    starts : ndarray, (O + 1,), int64
        See `mask_starts`.
    """
    mask_OP = pack_mask(mask_OI)
    return mask_OP, w_OI[mask_OI], mask_starts(mask_OP)


def stream_reader(
    values: np.ndarray, scales: np.ndarray | None, zeros: np.ndarray | None, format: Format | None
) -> Callable[[int, int], np.ndarray]:
    """Return what reads a range of the values of a stream, decoding them if they are quantized.

    Parameters
    ----------
    values : ndarray, (stored,), float32 or float64, or (1, packed), uint8
        The stream.
    scales, zeros : ndarray, (1, J), optional
        Those of quantized values.
    format : Format, optional
        The format of quantized values.

    Returns
    -------
    callable
        From first (included) and last (excluded) position to values.
    """
    if format is None:
        return lambda first, last: values[first:last]
    assert scales is not None
    return lambda first, last: format.decode_span(values, scales, zeros, slice(first, last))[0]


def _bitmap_decoder(
    mask_OP: np.ndarray,
    values: np.ndarray,
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
        kept = read(starts[rows.start], starts[rows.stop])
        tile = np.zeros((rows.stop - rows.start, n_inputs), kept.dtype)
        tile[unpack_mask(mask_OP[rows], n_inputs)] = kept
        return tile

    return decode
