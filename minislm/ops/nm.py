"""Products with a matrix that stores at most n of every m inputs, such as 2:4.

The regular pattern makes places cheap (two bits a value for 2:4) and rows equally long. Rows are put in place a tile at
a time and multiplied by BLAS; kernels visit only what is stored. Where a `format` is given, `values` is a packed row of
codes for each output, with its `scales` (and `zeros`).
"""

from __future__ import annotations

import numpy as np

from minislm.errors import UsageError
from minislm.ops.bits import pack_bits, unpack_bits
from minislm.ops.formats import Format
from minislm.ops.tiles import Decode, product_by_tiles, product_t_by_tiles, row_tiles, rows_by_tiles


def nm_product(
    x_NI: np.ndarray,
    values: np.ndarray,
    places_OP: np.ndarray,
    scales: np.ndarray | None = None,
    zeros: np.ndarray | None = None,
    *,
    n: int,
    m: int,
    format: Format | None = None,
) -> np.ndarray:
    """Multiply rows by the transpose of an n:m matrix.

    Parameters
    ----------
    x_NI : ndarray, (N, I), float32 or float64
        Input rows.
    values : ndarray, (O, U), float32 or float64, or (O, packed), uint8
        `n` values for each group of `m` inputs, the last group being filled up: ``U = ceil(I / m) * n``. Where fewer
        are kept, zeros.
    places_OP : ndarray, (O, P), uint8
        The place of each value inside its group, increasing, as ``place_bits(m)`` bits of a little-endian bit stream.
        A place beyond the last input belongs to a zero value and is not read.
    scales, zeros : ndarray, (O, J), optional
        Those of quantized values, whose groups run along the stored values of a row.
    n, m : int
        At most `n` of every `m` inputs are stored.
    format : Format, optional
        The format of quantized values.

    Returns
    -------
    ndarray, (N, O)
        In the dtype of `x_NI`.

    Notes
    -----
    ``y[n, o] = sum of x[n, i] * w[o, i] over the stored (o, i)``: two operations for each stored value and row of x;
    ``n / m`` of the entries are read, with their places. Accumulates in the dtype of `x_NI`; rows are put in place in
    tiles of at most 1 MiB.

    References
    ----------
    A. Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021, arXiv 2104.08378, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> w_OI = np.array([[0.0, 2.0, 3.0, 0.0]])
    >>> values_OU, places_OP = pack_nm(w_OI, w_OI != 0, n=2, m=4)
    >>> nm_product(np.array([[1.0, 10.0, 100.0, 1000.0]]), values_OU, places_OP, n=2, m=4)
    array([[320.]])
    """
    decode = _nm_decoder(values, places_OP, scales, zeros, n=n, m=m, format=format, n_inputs=x_NI.shape[1])
    return product_by_tiles(x_NI, len(places_OP), decode)


def nm_product_t(
    dy_NO: np.ndarray,
    values: np.ndarray,
    places_OP: np.ndarray,
    scales: np.ndarray | None = None,
    zeros: np.ndarray | None = None,
    *,
    n: int,
    m: int,
    n_inputs: int,
    format: Format | None = None,
) -> np.ndarray:
    """Multiply rows by an n:m matrix: the gradient of `nm_product`'s input.

    Parameters
    ----------
    dy_NO : ndarray, (N, O), float32 or float64
        Gradient of the output.
    values, places_OP, scales, zeros, n, m : ndarray or int
        As of `nm_product`.
    n_inputs : int
        Columns of the matrix, I.
    format : Format, optional
        As of `nm_product`.

    Returns
    -------
    ndarray, (N, I)
        In the dtype of `dy_NO`.

    Notes
    -----
    ``dx[n, i] = sum of dy[n, o] * w[o, i] over the stored (o, i)``, at the cost of `nm_product`.

    References
    ----------
    As of `nm_product`.

    Examples
    --------
    >>> import numpy as np
    >>> w_OI = np.array([[0.0, 2.0, 3.0, 0.0]])
    >>> values_OU, places_OP = pack_nm(w_OI, w_OI != 0, n=2, m=4)
    >>> nm_product_t(np.array([[2.0]]), values_OU, places_OP, n=2, m=4, n_inputs=4)
    array([[0., 4., 6., 0.]])
    """
    return product_t_by_tiles(
        dy_NO, n_inputs, _nm_decoder(values, places_OP, scales, zeros, n=n, m=m, format=format, n_inputs=n_inputs)
    )


def nm_rows(
    ids_N: np.ndarray,
    values: np.ndarray,
    places_OP: np.ndarray,
    scales: np.ndarray | None = None,
    zeros: np.ndarray | None = None,
    *,
    n: int,
    m: int,
    n_inputs: int,
    format: Format | None = None,
) -> np.ndarray:
    """Look rows of an n:m matrix up.

    Parameters
    ----------
    ids_N : ndarray, (N,), int64
        Wanted rows.
    values, places_OP, scales, zeros, n, m : ndarray or int
        As of `nm_product`.
    n_inputs : int
        Columns of the matrix, I.
    format : Format, optional
        As of `nm_product`.

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
    As of `nm_product`.

    Examples
    --------
    >>> import numpy as np
    >>> w_OI = np.array([[0.0, 2.0, 3.0, 0.0]])
    >>> values_OU, places_OP = pack_nm(w_OI, w_OI != 0, n=2, m=4)
    >>> nm_rows(np.array([0]), values_OU, places_OP, n=2, m=4, n_inputs=4)
    array([[0., 2., 3., 0.]])
    """
    decode = _nm_decoder(values, places_OP, scales, zeros, n=n, m=m, format=format, n_inputs=n_inputs)
    dtype = values.dtype if format is None else np.dtype(np.float32)
    return rows_by_tiles(ids_N, len(places_OP), n_inputs, dtype, decode)


def place_bits(m: int) -> int:
    """Count the bits of a place inside a group.

    Parameters
    ----------
    m : int
        Inputs of a group.

    Returns
    -------
    int
        Two for ``m = 4``.
    """
    return max(1, (m - 1).bit_length())


def pack_nm(w_OI: np.ndarray, mask_OI: np.ndarray, *, n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Keep the masked entries of a matrix, at most n of every m.

    Parameters
    ----------
    w_OI : ndarray, (O, I)
        The matrix.
    mask_OI : ndarray, (O, I), bool
        True where an entry is kept.
    n, m : int
        At most `n` of every `m` inputs are kept.

    Returns
    -------
    values_OU : ndarray, (O, U)
        Kept entries, `n` for each group, zeros where fewer are kept.
    places_OP : ndarray, (O, P), uint8
        Their places inside the groups, increasing, as ``place_bits(m)`` bits each.

    Raises
    ------
    UsageError
        Code ``bad_mask``: a group keeps more than `n`.

    Examples
    --------
    >>> import numpy as np
    >>> w_OI = np.array([[0.0, 2.0, 3.0, 0.0]])
    >>> pack_nm(w_OI, w_OI != 0, n=2, m=4)
    (array([[2., 3.]]), array([[9]], dtype=uint8))
    """
    n_outputs, n_inputs = w_OI.shape
    n_groups = -(-n_inputs // m)
    bits = place_bits(m)
    values_OU = np.empty((n_outputs, n_groups * n), w_OI.dtype)
    places_OP = np.empty((n_outputs, -(-n_groups * n * bits // 8)), np.uint8)
    for rows in row_tiles(n_outputs, 8 * n_inputs):
        kept = np.zeros((rows.stop - rows.start, n_groups * m), np.bool_)
        kept[:, :n_inputs] = mask_OI[rows]
        kept = kept.reshape(-1, n_groups, m)
        if (kept.sum(2) > n).any():
            output, group = np.argwhere(kept.sum(2) > n)[0] + [rows.start, 0]
            raise UsageError("bad_mask", f"{n}:{m} keeps at most {n} of {m}; output {output}, group {group} has more")
        filled = np.zeros(kept.shape, w_OI.dtype)
        filled.reshape(-1, n_groups * m)[:, :n_inputs] = np.where(mask_OI[rows], w_OI[rows], 0)
        # Kept places first, then the lowest others to fill the group up; a stable sort keeps both in order.
        places = np.sort(np.argsort(~kept, axis=2, kind="stable")[:, :, :n], axis=2)
        values_OU[rows] = np.take_along_axis(filled, places, axis=2).reshape(-1, n_groups * n)
        places_OP[rows] = pack_bits(places.astype(np.uint8).reshape(-1, n_groups * n), bits, places_OP.shape[1])
    return values_OU, places_OP


def nm_entries(
    stored_OU: np.ndarray, places_OP: np.ndarray, n: int, m: int, n_inputs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Put what is stored of some rows in its places.

    Parameters
    ----------
    stored_OU : ndarray, (O, U)
        Values or codes, `n` for each group.
    places_OP : ndarray, (O, P), uint8
        Their places.
    n, m : int
        At most `n` of every `m` inputs are stored.
    n_inputs : int
        Columns of the matrix, I.

    Returns
    -------
    kept_OI : ndarray, (O, I), bool
        Which entries are stored.
    stored_OI : ndarray, (O, I)
        What they are; zeros elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> nm_entries(np.array([[2.0, 3.0]]), np.array([[9]], np.uint8), 2, 4, 3)
    (array([[False,  True,  True]]), array([[0., 2., 3.]]))
    """
    n_outputs, n_groups = len(stored_OU), -(-n_inputs // m)
    places = unpack_bits(places_OP, place_bits(m), n_groups * n).reshape(n_outputs, n_groups, n).astype(np.intp)
    kept, stored = np.zeros((n_outputs, n_groups, m), np.bool_), np.zeros((n_outputs, n_groups, m), stored_OU.dtype)
    np.put_along_axis(kept, places, True, axis=2)
    np.put_along_axis(stored, places, stored_OU.reshape(n_outputs, n_groups, n), axis=2)
    kept_OI, stored_OI = (x.reshape(n_outputs, n_groups * m)[:, :n_inputs] for x in (kept, stored))
    return kept_OI, stored_OI


def _nm_decoder(
    values: np.ndarray,
    places_OP: np.ndarray,
    scales: np.ndarray | None,
    zeros: np.ndarray | None,
    *,
    n: int,
    m: int,
    format: Format | None,
    n_inputs: int,
) -> Decode:
    """Return the function that puts a range of rows in place."""
    n_groups = -(-n_inputs // m)

    def read(rows: slice) -> np.ndarray:
        if format is None:
            return values[rows]
        assert scales is not None
        codes = format.unpack(values[rows], n_groups * n)
        return format.decode(codes, scales[rows], None if zeros is None else zeros[rows])

    return lambda rows: nm_entries(read(rows), places_OP[rows], n, m, n_inputs)[1]
