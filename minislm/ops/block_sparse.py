"""Products with a matrix of which only some blocks of 16 outputs and 32 inputs are stored.

A block is what a panel holds of 32 inputs (`ops.panels`), so that kernels pass over those that are not stored, whatever
the number of rows. Where a `format` is given, `values` is packed rows of codes with their `scales` (and `zeros`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minislm.ops.bits import unpack_mask
from minislm.ops.formats import Format
from minislm.ops.panels import BLOCK, OUTPUTS, RoundedRows, pack_groups, pack_panels, unpack_panels
from minislm.ops.tiles import Decode, product_by_tiles, product_t_by_tiles, rows_by_tiles


def block_sparse_product(
    x_NI: np.ndarray,
    blocks_CQ: np.ndarray,
    values: np.ndarray,
    scales: np.ndarray | None = None,
    zeros: np.ndarray | None = None,
    *,
    format: Format | None = None,
) -> np.ndarray:
    """Multiply rows by the transpose of a matrix of blocks.

    Parameters
    ----------
    x_NI : ndarray, (N, I), float32 or float64
        Input rows.
    blocks_CQ : ndarray, (C, Q), uint8
        Bit b of the little-endian bit stream of 16 outputs says whether their block b of 32 inputs is stored.
    values : ndarray, (16 * stored, 32), float32 or float64, or (16 * stored, packed), uint8
        The stored blocks, those of the first 16 outputs first: 16 rows each, zeros beyond the last input.
    scales, zeros : ndarray, (16 * stored, 1), optional
        Those of quantized values.
    format : Format, optional
        The format of quantized values.

    Returns
    -------
    ndarray, (N, 16 * C)
        In the dtype of `x_NI`.

    Notes
    -----
    ``y[n, o] = sum of x[n, i] * w[o, i] over the stored blocks``: two operations for each stored value and row of x.
    Accumulates in the dtype of `x_NI`; rows are put in place in tiles of at most 1 MiB.

    References
    ----------
    S. Gray, A. Radford and D. Kingma, "GPU Kernels for Block-Sparse Weights", 2017,
    https://cdn.openai.com/blocksparse/blocksparsepaper.pdf.

    Examples
    --------
    >>> import numpy as np
    >>> blocks_CQ, values = np.array([[2]], np.uint8), np.ones((16, 32))  # of two blocks of inputs, the second
    >>> block_sparse_product(np.arange(64.0)[None], blocks_CQ, values)[0, :2]
    array([1520., 1520.])
    """
    decode = _decoder(blocks_CQ, values, scales, zeros, format=format, n_inputs=x_NI.shape[1])
    return product_by_tiles(x_NI, OUTPUTS * len(blocks_CQ), decode)


def block_sparse_product_t(
    dy_NO: np.ndarray,
    blocks_CQ: np.ndarray,
    values: np.ndarray,
    scales: np.ndarray | None = None,
    zeros: np.ndarray | None = None,
    *,
    n_inputs: int,
    format: Format | None = None,
) -> np.ndarray:
    """Multiply rows by a matrix of blocks: the gradient of `block_sparse_product`'s input.

    Parameters
    ----------
    dy_NO : ndarray, (N, O), float32 or float64
        Gradient of the output.
    blocks_CQ, values, scales, zeros : ndarray
        As of `block_sparse_product`.
    n_inputs : int
        Columns of the matrix, I.
    format : Format, optional
        As of `block_sparse_product`.

    Returns
    -------
    ndarray, (N, I)
        In the dtype of `dy_NO`.

    Notes
    -----
    ``dx[n, i] = sum of dy[n, o] * w[o, i] over the stored blocks``, at the cost of `block_sparse_product`.

    References
    ----------
    As of `block_sparse_product`.

    Examples
    --------
    >>> import numpy as np
    >>> blocks_CQ, values = np.array([[1]], np.uint8), np.ones((16, 32))
    >>> block_sparse_product_t(np.ones((1, 16)), blocks_CQ, values, n_inputs=2)
    array([[16., 16.]])
    """
    decode = _decoder(blocks_CQ, values, scales, zeros, format=format, n_inputs=n_inputs)
    return product_t_by_tiles(dy_NO, n_inputs, decode)


def block_sparse_rows(
    ids_N: np.ndarray,
    blocks_CQ: np.ndarray,
    values: np.ndarray,
    scales: np.ndarray | None = None,
    zeros: np.ndarray | None = None,
    *,
    n_inputs: int,
    format: Format | None = None,
) -> np.ndarray:
    """Look rows of a matrix of blocks up.

    Parameters
    ----------
    ids_N : ndarray, (N,), int64
        Wanted rows.
    blocks_CQ, values, scales, zeros : ndarray
        As of `block_sparse_product`.
    n_inputs : int
        Columns of the matrix, I.
    format : Format, optional
        As of `block_sparse_product`.

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
    As of `block_sparse_product`.

    Examples
    --------
    >>> import numpy as np
    >>> blocks_CQ, values = np.array([[1]], np.uint8), np.ones((16, 32))
    >>> block_sparse_rows(np.array([3]), blocks_CQ, values, n_inputs=2)
    array([[1., 1.]])
    """
    decode = _decoder(blocks_CQ, values, scales, zeros, format=format, n_inputs=n_inputs)
    dtype = values.dtype if format is None else np.dtype(np.float32)
    return rows_by_tiles(ids_N, OUTPUTS * len(blocks_CQ), n_inputs, dtype, decode)


def pack_block_sparse(w_OI: np.ndarray, mask_OI: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keep the blocks of a matrix of which a mask keeps an entry.

    Parameters
    ----------
    w_OI : ndarray, (O, I)
        The matrix; 16 divides O.
    mask_OI : ndarray, (O, I), bool
        True where an entry is kept; what it drops inside of a kept block becomes 0.

    Returns
    -------
    blocks_CQ : ndarray, (C, Q), uint8
        Which blocks are kept.
    values : ndarray, (16 * stored, 32)
        The kept blocks.

    Examples
    --------
    >>> import numpy as np
    >>> w_OI = np.eye(16, 40)
    >>> blocks_CQ, values = pack_block_sparse(w_OI, w_OI != 0)
    >>> blocks_CQ, values.shape
    (array([[1]], dtype=uint8), (16, 32))
    """
    n_outputs, n_inputs = w_OI.shape
    across = -(-n_inputs // BLOCK)
    padded = np.zeros((n_outputs, across * BLOCK), w_OI.dtype)
    padded[:, :n_inputs] = np.where(mask_OI, w_OI, 0)
    kept = np.zeros(padded.shape, np.bool_)
    kept[:, :n_inputs] = mask_OI
    shape = n_outputs // OUTPUTS, OUTPUTS, across, BLOCK
    stored = kept.reshape(shape).any(axis=(1, 3))
    values: np.ndarray = padded.reshape(shape).swapaxes(1, 2)[stored].reshape(-1, BLOCK)
    return np.packbits(stored, axis=1, bitorder="little"), values


def block_sparse_entries(blocks_CQ: np.ndarray, stored: np.ndarray, n_inputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Put stored blocks in their places.

    Parameters
    ----------
    blocks_CQ : ndarray, (C, Q), uint8
        Which blocks are stored.
    stored : ndarray, (16 * stored, 32)
        Their values, or codes.
    n_inputs : int
        Columns of the matrix, I.

    Returns
    -------
    kept_OI : ndarray, (16 * C, I), bool
        Which entries are stored.
    stored_OI : ndarray, (16 * C, I)
        What they are; zeros elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> block_sparse_entries(np.array([[1]], np.uint8), np.ones((16, 32)), 33)[1][0, [0, 31, 32]]
    array([1., 1., 0.])
    """
    across, n_outputs = -(-n_inputs // BLOCK), OUTPUTS * len(blocks_CQ)
    kept = unpack_mask(blocks_CQ, across)
    tiles = np.zeros((*kept.shape, OUTPUTS, BLOCK), stored.dtype)
    tiles[kept] = stored.reshape(-1, OUTPUTS, BLOCK)
    stored_OI = tiles.swapaxes(1, 2).reshape(n_outputs, across * BLOCK)[:, :n_inputs]
    kept_OI: np.ndarray = np.repeat(np.repeat(kept, OUTPUTS, axis=0), BLOCK, axis=1)[:, :n_inputs]
    return kept_OI, stored_OI


class BlockLayout(NamedTuple):
    """The arrays of a quantized matrix of blocks in panels, of which only the stored blocks are there.

    Parameters
    ----------
    lines : ndarray, (stored, bits, 64), uint8
        Codes of each block, as `ops.panels.pack_panels` lays them out.
    columns : ndarray, (stored,), int32
        Which block of its panel's inputs it is.
    starts : ndarray, (panels + 1,), int64
        Where the blocks of each panel begin, and where the last one's end.
    scales : ndarray, (stored, 1, 16), float16 or float32
        Of each output of a block.
    zeros : ndarray, (stored, 1, 16), uint8, or None
        Of an asymmetric format.
    """

    lines: np.ndarray
    columns: np.ndarray
    starts: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray | None


def pack_block_sparse_panels(
    blocks_CQ: np.ndarray, codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray | None = None, *, format: Format
) -> BlockLayout:
    """Lay a quantized matrix of blocks out in panels.

    Parameters
    ----------
    blocks_CQ : ndarray, (C, Q), uint8
        Which blocks are stored.
    codes : ndarray, (16 * stored, packed), uint8
        Their rows.
    scales, zeros : ndarray, (16 * stored, 1)
        Of each row.
    format : Format
        What they mean.

    Returns
    -------
    BlockLayout
        The same numbers.
    """
    kept = np.unpackbits(blocks_CQ, axis=1, bitorder="little")
    starts = np.zeros(len(kept) + 1, np.int64)
    np.cumsum(kept.sum(axis=1), out=starts[1:])
    lines = np.ascontiguousarray(pack_panels(codes, n_inputs=BLOCK, format=format)[:, 0])
    columns = np.nonzero(kept)[1].astype(np.int32)
    return BlockLayout(lines, columns, starts, pack_groups(scales), None if zeros is None else pack_groups(zeros))


def block_sparse_panel_product(
    rounded_NP: np.ndarray,
    lines: np.ndarray,
    columns: np.ndarray,
    starts: np.ndarray,
    scales: np.ndarray,
    zeros: np.ndarray | None = None,
    b_O: np.ndarray | None = None,
    *,
    format: Format,
    n_inputs: int,
    n_outputs: int,
) -> np.ndarray:
    """Multiply rounded rows by the transpose of a quantized matrix of blocks in panels.

    Parameters
    ----------
    rounded_NP : ndarray, (N, P), int8
        What `ops.panels.round_activations` returned.
    lines, columns, starts, scales, zeros : ndarray
        The fields of a `BlockLayout`.
    b_O : ndarray, (O,), float32, optional
        Bias, added in the end.
    format : Format
        What codes, scales and zeros mean.
    n_inputs, n_outputs : int
        Of the matrix.

    Returns
    -------
    ndarray, (N, O), float32
        The product of the rounded rows with the stored blocks.

    Notes
    -----
    A block adds ``(a * s) * sum(x * (code - zero))`` to its outputs, where a is the scale of its inputs, s that of an
    output, and the sum one of whole numbers; blocks are added in their order in float32. 2 operations for each stored
    code and row.

    References
    ----------
    B. Jacob et al., 2017, arXiv 1712.05877, section 2.3.

    Examples
    --------
    >>> import numpy as np
    >>> from minislm.ops.formats import format_named
    >>> from minislm.ops.panels import round_activations
    >>> int8, codes = format_named("int8"), np.full((16, 32), 130, np.uint8)  # two steps above zero
    >>> blocks_CQ, scales = np.ones((1, 1), np.uint8), np.ones((16, 1), np.float32)
    >>> layout = pack_block_sparse_panels(blocks_CQ, codes, scales, format=int8)
    >>> rounded_NP = round_activations(np.full((1, 32), 127.0, np.float32), group=32)
    >>> block_sparse_panel_product(rounded_NP, *layout, format=int8, n_inputs=32, n_outputs=16)[0, :2]
    array([8128., 8128.], dtype=float32)
    """
    x_codes, x_scales, _ = RoundedRows.of(rounded_NP, n_inputs)
    n_rows = len(rounded_NP)
    x_tiles = x_codes.reshape(n_rows, x_codes.shape[1] // BLOCK, BLOCK).astype(np.float64)
    codes = unpack_panels(lines[:, None], OUTPUTS * len(lines), BLOCK, format=format)
    steps = format.code_steps(codes, None if zeros is None else zeros.reshape(-1, 1))
    steps = steps.reshape(len(lines), OUTPUTS, BLOCK).astype(np.float64)
    scales = scales.reshape(len(lines), OUTPUTS).astype(np.float32)
    y_NO = np.zeros((n_rows, n_outputs), np.float32)
    for panel in range(len(starts) - 1):
        some = slice(starts[panel], starts[panel + 1])
        inputs = columns[some]
        dots = np.einsum("nck,cok->nco", x_tiles[:, inputs], steps[some]).astype(np.float32)
        terms = dots * (x_scales[:, inputs, None] * scales[some])
        for block in range(terms.shape[1]):
            y_NO[:, panel * OUTPUTS : (panel + 1) * OUTPUTS] += terms[:, block]
    return y_NO if b_O is None else y_NO + b_O


def _decoder(
    blocks_CQ: np.ndarray,
    values: np.ndarray,
    scales: np.ndarray | None,
    zeros: np.ndarray | None,
    *,
    format: Format | None,
    n_inputs: int,
) -> Decode:
    """Return the function that puts a range of rows in place."""
    starts = np.concatenate([[0], np.cumsum(np.bitwise_count(blocks_CQ).sum(axis=1, dtype=np.int64))])

    def decode(rows: slice) -> np.ndarray:
        first, end = rows.start // OUTPUTS, -(-rows.stop // OUTPUTS)
        some = slice(OUTPUTS * starts[first], OUTPUTS * starts[end])
        stored = values[some]
        if format is not None and scales is not None:
            codes = format.unpack(stored, BLOCK)
            stored = format.decode(codes, scales[some], None if zeros is None else zeros[some])
        tile = block_sparse_entries(blocks_CQ[first:end], stored, n_inputs)[1]
        return tile[rows.start - first * OUTPUTS : rows.stop - first * OUTPUTS]

    return decode
