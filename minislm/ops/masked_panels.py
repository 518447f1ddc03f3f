"""Masked panels: sparse matrices laid out as processors multiply them, with a bit for every weight and no zeros.

A *masked panel* is 16 outputs side by side, as in `ops.panels`. For each input a mask of 16 bits says which of the
outputs store it, and the values that are stored follow each other, input by input: one instruction puts 16 of them in
their places, or the 64 codes of four inputs. Half of the weights in int8 take 5 bits a weight so, 2:4 or not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minislm.ops.bits import pack_bits, unpack_bits
from minislm.ops.formats import Format
from minislm.ops.panels import BLOCK, LINE, OUTPUTS, RoundedRows, n_blocks, unpack_groups
from minislm.ops.quantized import product_of_codes
from minislm.ops.tiles import product_by_tiles, row_tiles

Entries = Callable[[slice], tuple[np.ndarray, np.ndarray]]
"""Given a range of rows, returns which entries of them are stored, (rows, I) bool, and what they are, (rows, I)."""


class MaskedLayout(NamedTuple):
    """The arrays of a sparse matrix in masked panels.

    Parameters
    ----------
    masks : ndarray, (panels, I1), uint16
        Bit o of an input's mask says whether output o of the panel stores it; I1 is a multiple of 64.
    values : ndarray, (bytes,), uint8, or (numbers,), float32 or float64
        What is stored, panel after panel, input after input, output after output; 64 zeros follow. Codes of fewer than
        8 bits are a little-endian bit stream, which begins on a byte for every block of 32 inputs.
    starts : ndarray, (panels + 1,), int64
        Where the values of each panel begin, and where the last one's end.
    """

    masks: np.ndarray
    values: np.ndarray
    starts: np.ndarray


def pack_masked_panels(
    entries: Entries, n_outputs: int, n_inputs: int, dtype: np.dtype, bits: int | None = None
) -> MaskedLayout:
    """Lay the entries that a matrix stores out in masked panels.

    Parameters
    ----------
    entries : callable
        Returns which entries of some rows are stored, and what they are.
    n_outputs, n_inputs : int
        Of the matrix.
    dtype : dtype
        Of the entries: uint8 for codes.
    bits : int, optional
        Bits of a code; None: entries are floats.

    Returns
    -------
    MaskedLayout
        The same entries.

    Examples
    --------
    >>> import numpy as np
    >>> w_OI = np.array([[0.0, 2.0], [3.0, 4.0]])
    >>> layout = pack_masked_panels(lambda rows: (w_OI[rows] != 0, w_OI[rows]), 2, 2, w_OI.dtype)
    >>> layout.masks[0, :2], layout.values[:3], layout.starts
    (array([2, 3], dtype=uint16), array([3., 2., 4.]), array([0, 3]))
    """
    panels, blocks = -(-n_outputs // OUTPUTS), n_blocks(n_inputs)
    masks, starts = np.zeros((panels, blocks * BLOCK), np.uint16), np.zeros(panels + 1, np.int64)
    found: list[np.ndarray] = []
    for some in row_tiles(panels, OUTPUTS * blocks * BLOCK):
        rows = slice(some.start * OUTPUTS, min(some.stop * OUTPUTS, n_outputs))
        kept_OI, stored_OI = entries(rows)
        shape = (some.stop - some.start) * OUTPUTS, blocks * BLOCK
        kept, stored = np.zeros(shape, np.bool_), np.zeros(shape, dtype)
        kept[: len(kept_OI), :n_inputs], stored[: len(kept_OI), :n_inputs] = kept_OI, stored_OI
        kept, stored = (x.reshape(shape[0] // OUTPUTS, OUTPUTS, shape[1]).swapaxes(1, 2) for x in (kept, stored))
        masks[some] = np.ascontiguousarray(np.packbits(kept, axis=2, bitorder="little")).view("<u2")[:, :, 0]
        sizes = _sizes(masks[some], bits)
        starts[some.start + 1 : some.stop + 1] = sizes.sum(axis=1)
        found.append(stored[kept] if bits in (None, 8) else _packed(stored[kept], masks[some], sizes, bits))
    np.cumsum(starts, out=starts)
    return MaskedLayout(masks, np.concatenate([*found, np.zeros(LINE, dtype)]), starts)


def _sizes(masks: np.ndarray, bits: int | None) -> np.ndarray:
    """Count the numbers, or the bytes of codes, of every block, (panels, blocks)."""
    counts: np.ndarray = (
        np.bitwise_count(masks).reshape(len(masks), masks.shape[1] // BLOCK, BLOCK).sum(axis=2, dtype=np.int64)
    )
    return counts if bits is None else -(-counts * bits // 8)


def _packed(codes: np.ndarray, masks: np.ndarray, sizes: np.ndarray, bits: int) -> np.ndarray:
    """Put the codes of each block side by side, from a byte on."""
    room = np.zeros((sizes.size, OUTPUTS * BLOCK), np.uint8)
    room[np.arange(OUTPUTS * BLOCK) < _sizes(masks, None).reshape(-1, 1)] = codes
    packed = pack_bits(room, bits, OUTPUTS * BLOCK * bits // 8)
    return packed[np.arange(packed.shape[1]) < sizes.reshape(-1, 1)]


def _unpacked(values: np.ndarray, masks: np.ndarray, bits: int) -> np.ndarray:
    """Undo `_packed`."""
    counts, sizes = _sizes(masks, None).reshape(-1, 1), _sizes(masks, bits).reshape(-1, 1)
    packed = np.zeros((len(sizes), OUTPUTS * BLOCK * bits // 8), np.uint8)
    packed[np.arange(packed.shape[1]) < sizes] = values
    return unpack_bits(packed, bits, OUTPUTS * BLOCK)[np.arange(OUTPUTS * BLOCK) < counts]


def unpack_masked_panels(
    layout: MaskedLayout, rows: slice, n_inputs: int, bits: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Undo `pack_masked_panels` for some outputs.

    Parameters
    ----------
    layout : MaskedLayout
        The arrays.
    rows : slice
        The outputs.
    n_inputs : int
        Of the matrix.
    bits : int, optional
        Bits of a code.

    Returns
    -------
    kept_OI : ndarray, (rows, I), bool
        Which entries are stored.
    stored_OI : ndarray, (rows, I)
        What they are; zeros elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> w_OI = np.array([[0.0, 2.0], [3.0, 4.0]])
    >>> layout = pack_masked_panels(lambda rows: (w_OI[rows] != 0, w_OI[rows]), 2, 2, w_OI.dtype)
    >>> unpack_masked_panels(layout, slice(0, 2), 2)[1]
    array([[0., 2.],
           [3., 4.]])
    """
    first, end = rows.start // OUTPUTS, -(-rows.stop // OUTPUTS)
    masks = np.ascontiguousarray(layout.masks[first:end])
    bytes_ = masks.astype("<u2", copy=False).view(np.uint8).reshape(*masks.shape, 2)
    kept = np.unpackbits(bytes_, axis=2, bitorder="little").view(np.bool_)
    values = layout.values[layout.starts[first] : layout.starts[end]]
    stored = np.zeros(kept.shape, values.dtype)
    stored[kept] = values if bits in (None, 8) else _unpacked(values, masks, bits)
    wanted = slice(rows.start - first * OUTPUTS, rows.stop - first * OUTPUTS)
    shape = len(masks) * OUTPUTS, masks.shape[1]
    kept_OI, stored_OI = (x.swapaxes(1, 2).reshape(shape)[wanted, :n_inputs] for x in (kept, stored))
    return kept_OI, stored_OI


def masked_panel_product(
    rounded_NP: np.ndarray,
    masks: np.ndarray,
    codes: np.ndarray,
    starts: np.ndarray,
    scales: np.ndarray,
    zeros: np.ndarray | None = None,
    b_O: np.ndarray | None = None,
    *,
    format: Format,
    group: int,
    n_inputs: int,
    n_outputs: int,
) -> np.ndarray:
    """Multiply rounded rows by the transpose of a sparse quantized matrix in masked panels.

    Parameters
    ----------
    rounded_NP : ndarray, (N, P), int8
        What `ops.panels.round_activations` returned.
    masks, codes, starts : ndarray
        The fields of a `MaskedLayout`, whose values are codes.
    scales : ndarray, (panels, J, 16), float16 or float32
        Scale of each group of inputs, stored or not.
    zeros : ndarray, (panels, J, 16), uint8, optional
        Code of zero in each group of an asymmetric format.
    b_O : ndarray, (O,), float32, optional
        Bias, added in the end.
    format : Format
        What codes, scales and zeros mean.
    group : {0, 32}
        Inputs of a row that share a scale.
    n_inputs, n_outputs : int
        Of the matrix.

    Returns
    -------
    ndarray, (N, O), float32
        What `ops.panels.panel_product` gives where the code of zero stands for all that is not stored.

    Notes
    -----
    The sums of `ops.quantized.quantized_product_int8`, and the bias; 2NOI integer and 2NOJ float operations. Reads one
    bit a weight, and what is stored.

    References
    ----------
    H. Kim et al., "SparAMX: Accelerating Compressed LLMs Token Generation on AMX-powered CPUs", 2025, arXiv 2502.12444,
    section 4 (a bitmap, and values that an instruction expands).

    Examples
    --------
    >>> import numpy as np
    >>> from minislm.ops.formats import format_named
    >>> from minislm.ops.panels import pack_groups, round_activations
    >>> codes_OI, int8 = np.array([[130, 0]], np.uint8), format_named("int8")  # two steps above zero; not stored
    >>> layout = pack_masked_panels(lambda rows: (codes_OI[rows] != 0, codes_OI[rows]), 1, 2, np.dtype(np.uint8), 8)
    >>> rounded_NP = round_activations(np.array([[127.0, 9.0]], np.float32), group=0)
    >>> scales = pack_groups(np.ones((1, 1), np.float32))
    >>> masked_panel_product(rounded_NP, *layout, scales, format=int8, group=0, n_inputs=2, n_outputs=1)
    array([[254.]], dtype=float32)
    """
    x_codes, x_scales, _ = RoundedRows.of(rounded_NP, n_inputs)
    scales_OJ, zeros_OJ = unpack_groups(scales, n_outputs), _unpacked_groups(zeros, n_outputs)
    layout = MaskedLayout(masks, codes, starts)
    y_NO = product_of_codes(
        x_codes[:, :n_inputs],
        x_scales,
        lambda rows: _codes(layout, rows, n_inputs, zeros_OJ, format),
        scales_OJ,
        zeros_OJ,
        format=format,
        group=group,
    )
    return y_NO if b_O is None else y_NO + b_O


def decoded_masked_panel_product(
    x_NI: np.ndarray,
    masks: np.ndarray,
    values: np.ndarray,
    starts: np.ndarray,
    scales: np.ndarray | None = None,
    zeros: np.ndarray | None = None,
    b_O: np.ndarray | None = None,
    *,
    format: Format | None = None,
    n_outputs: int,
) -> np.ndarray:
    """Multiply float rows by the transpose of a sparse matrix in masked panels.

    Parameters
    ----------
    x_NI : ndarray, (N, I), float32 or float64
        Input rows.
    masks, values, starts : ndarray
        The fields of a `MaskedLayout`.
    scales, zeros : ndarray, (panels, J, 16), optional
        Those of quantized values, as of `masked_panel_product`.
    b_O : ndarray, (O,), optional
        Bias, added in the end.
    format : Format, optional
        The format of quantized values; None: they are floats.
    n_outputs : int
        Of the matrix.

    Returns
    -------
    ndarray, (N, O)
        In the dtype of `x_NI`.

    Notes
    -----
    ``y[n, o] = sum of x[n, i] * w[o, i] over the stored (o, i)``, and the bias: 2NOI operations, because every lane of
    a register multiplies, and one bit a weight is read besides what is stored. Accumulates in the dtype of `x_NI`.

    References
    ----------
    H. Kim et al., 2025, arXiv 2502.12444, section 4.

    Examples
    --------
    >>> import numpy as np
    >>> w_OI = np.array([[0.0, 2.0], [3.0, 4.0]])
    >>> layout = pack_masked_panels(lambda rows: (w_OI[rows] != 0, w_OI[rows]), 2, 2, w_OI.dtype)
    >>> decoded_masked_panel_product(np.array([[1.0, 10.0]]), *layout, n_outputs=2)
    array([[20., 43.]])
    """
    layout, n_inputs = MaskedLayout(masks, values, starts), x_NI.shape[1]
    scales_OJ, zeros_OJ = _unpacked_groups(scales, n_outputs), _unpacked_groups(zeros, n_outputs)

    def decode(rows: slice) -> np.ndarray:
        if format is None or scales_OJ is None:
            return unpack_masked_panels(layout, rows, n_inputs)[1]
        codes = _codes(layout, rows, n_inputs, zeros_OJ, format)
        return format.decode(codes, scales_OJ[rows], None if zeros_OJ is None else zeros_OJ[rows])

    y_NO = product_by_tiles(x_NI, n_outputs, decode)
    return y_NO if b_O is None else y_NO + b_O


def _unpacked_groups(groups: np.ndarray | None, n_outputs: int) -> np.ndarray | None:
    return None if groups is None else unpack_groups(groups, n_outputs)


def _codes(layout: MaskedLayout, rows: slice, n_inputs: int, zeros_OJ: np.ndarray | None, format: Format) -> np.ndarray:
    """Unpack the codes of some outputs, (rows, I); where nothing is stored, the code of zero."""
    kept, codes = unpack_masked_panels(layout, rows, n_inputs, format.bits)
    zero = np.uint8(format.zero) if zeros_OJ is None else format.spread(zeros_OJ[rows], n_inputs)
    return np.where(kept, codes, zero).astype(np.uint8)
