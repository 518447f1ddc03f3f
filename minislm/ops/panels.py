"""Panels: quantized matrices laid out as processors multiply them, by rows that were rounded once for all of them.

A *panel* is 16 outputs side by side, and a *line* of it 64 bytes: 4 neighbouring inputs (a *quad*) of each output. A
register of 512 bits multiplies a line by 4 inputs that it broadcasts, and 16 lines are a tile of matrix instructions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minislm.ops.formats import Format
from minislm.ops.quantized import product_of_codes, quantize_activations
from minislm.ops.tiles import product_by_tiles, row_tiles

OUTPUTS = 16
"""Outputs of a panel."""
BLOCK = 32
"""Inputs of a block: eight quads."""
LINE = 4 * OUTPUTS
"""Bytes of a line."""


def n_blocks(n_inputs: int) -> int:
    """Count the blocks of a row, rounded or of panels.

    Parameters
    ----------
    n_inputs : int
        Numbers in the row.

    Returns
    -------
    int
        Even, so that the widest tiles are full.

    Examples
    --------
    >>> n_blocks(64), n_blocks(65)
    (2, 4)
    """
    return -(-n_inputs // (2 * BLOCK)) * 2


def pack_panels(codes_OP: np.ndarray, *, n_inputs: int, format: Format) -> np.ndarray:
    """Lay codes out in panels.

    Parameters
    ----------
    codes_OP : ndarray, (O, P), uint8
        Packed codes.
    n_inputs : int
        Codes in a row, which the bytes alone do not tell.
    format : Format
        What they mean.

    Returns
    -------
    ndarray, (panels, blocks, bits, 64), uint8
        Of each block of 32 inputs as many lines as a code has bits; codes beyond the matrix are 0.

    Notes
    -----
    Byte ``4 * o + i`` of a quad's line is the code of output o and input i. Lines of codes of fewer than 8 bits are
    merged: the width is cut into powers of two, from the largest (7 is 4 + 2 + 1), and the first takes the low bits of
    each code, the next those above. A part of w bits fills w lines: line l holds quads l, l + w, l + 2w ... of the
    block, the k-th of them at bit ``k * w`` of each byte. A shift and a mask of a whole line give a quad again.

    References
    ----------
    Intel, "64 and IA-32 Architectures Software Developer's Manual", 2024, volume 2: VPDPBUSD and TDPBUSD, whose
    operands these are.

    Examples
    --------
    >>> import numpy as np
    >>> from minislm.ops.formats import format_named
    >>> int4 = format_named("int4-32")
    >>> codes_OP = int4.pack(np.arange(32, dtype=np.uint8)[None] % 16)
    >>> lines = pack_panels(codes_OP, n_inputs=32, format=int4)
    >>> lines.shape, [hex(byte) for byte in lines[0, 0, 1, :4]]  # quads 1 and 5: inputs 4 to 7 and 20 to 23
    ((1, 2, 4, 64), ['0x44', '0x55', '0x66', '0x77'])
    """
    panels, blocks = -(-len(codes_OP) // OUTPUTS), n_blocks(n_inputs)
    lines = np.zeros((panels, blocks, format.bits, LINE), np.uint8)
    for some in row_tiles(panels, OUTPUTS * blocks * BLOCK):
        codes_O2I = format.unpack(codes_OP[some.start * OUTPUTS : some.stop * OUTPUTS], n_inputs)
        padded_O1I1 = np.zeros(((some.stop - some.start) * OUTPUTS, blocks * BLOCK), np.uint8)
        padded_O1I1[: len(codes_O2I), :n_inputs] = codes_O2I
        quads = padded_O1I1.reshape(some.stop - some.start, OUTPUTS, blocks, 8, 4).transpose(0, 2, 3, 1, 4)
        quads = quads.reshape(-1, blocks, 8, LINE) if blocks else quads.reshape(len(quads), 0, 8, LINE)
        for first, width in _parts(format.bits):
            part = quads >> np.uint8(first) & np.uint8(2**width - 1)
            for quad in range(8):
                lines[some, :, first + quad % width] |= part[:, :, quad] << np.uint8(quad // width * width)
    return lines


def unpack_panels(lines: np.ndarray, n_outputs: int, n_inputs: int, *, format: Format) -> np.ndarray:
    """Undo `pack_panels`.

    Parameters
    ----------
    lines : ndarray, (panels, blocks, bits, 64), uint8
        Panels.
    n_outputs, n_inputs : int
        Of the matrix.
    format : Format
        Whose width the codes have.

    Returns
    -------
    ndarray, (O, I), uint8
        Codes, one in each byte.

    Examples
    --------
    >>> import numpy as np
    >>> from minislm.ops.formats import format_named
    >>> int3, codes_OI = format_named("int3"), np.array([[1, 7, 0, 5, 3]], np.uint8)
    >>> lines = pack_panels(int3.pack(codes_OI), n_inputs=5, format=int3)
    >>> unpack_panels(lines, 1, 5, format=int3)
    array([[1, 7, 0, 5, 3]], dtype=uint8)
    """
    panels, blocks = lines.shape[:2]
    quads = np.zeros((panels, blocks, 8, LINE), np.uint8)
    for first, width in _parts(format.bits):
        for quad in range(8):
            part = lines[:, :, first + quad % width] >> np.uint8(quad // width * width) & np.uint8(2**width - 1)
            quads[:, :, quad] |= part << np.uint8(first)
    padded = quads.reshape(panels, blocks, 8, OUTPUTS, 4).transpose(0, 3, 1, 2, 4)
    return padded.reshape(panels * OUTPUTS, blocks * BLOCK)[:n_outputs, :n_inputs]


def _parts(bits: int) -> list[tuple[int, int]]:
    """Cut a width into powers of two, from the largest: the first bit of each, and its width."""
    widths = [width for width in (8, 4, 2, 1) if bits & width]
    return [(sum(widths[:i]), width) for i, width in enumerate(widths)]


def pack_groups(scales_OJ: np.ndarray) -> np.ndarray:
    """Lay the scales or zeros of groups out as panels need them.

    Parameters
    ----------
    scales_OJ : ndarray, (O, J)
        Of each group.

    Returns
    -------
    ndarray, (panels, J, 16)
        Those of a panel's outputs side by side; 0 beyond the matrix.

    Examples
    --------
    >>> import numpy as np
    >>> pack_groups(np.ones((17, 3), np.float16)).shape
    (2, 3, 16)
    """
    n_outputs, groups = scales_OJ.shape
    panels = -(-n_outputs // OUTPUTS)
    padded_O1J = np.zeros((panels * OUTPUTS, groups), scales_OJ.dtype)
    padded_O1J[:n_outputs] = scales_OJ
    return np.ascontiguousarray(padded_O1J.reshape(panels, OUTPUTS, groups).swapaxes(1, 2))


def unpack_groups(groups: np.ndarray, n_outputs: int) -> np.ndarray:
    """Undo `pack_groups`.

    Parameters
    ----------
    groups : ndarray, (panels, J, 16)
        Scales or zeros.
    n_outputs : int
        Of the matrix.

    Returns
    -------
    ndarray, (O, J)
        Of each group.

    Examples
    --------
    >>> import numpy as np
    >>> unpack_groups(pack_groups(np.array([[1, 2]], np.uint8)), 1)
    array([[1, 2]], dtype=uint8)
    """
    return np.ascontiguousarray(groups.swapaxes(1, 2).reshape(len(groups) * OUTPUTS, groups.shape[1])[:n_outputs])


class RoundedRows(NamedTuple):
    """The fields of rows that `round_activations` made, as views.

    Parameters
    ----------
    codes_NI : ndarray, (N, I), int8
        From -127 to 127; the inputs are filled up with zeros to a multiple of 64.
    scales_NU : ndarray, (N, U), float32
        Of every block of 32 inputs.
    sums_NH : ndarray, (N, 2U), int16
        Of the codes of every half of a block.
    """

    codes_NI: np.ndarray
    scales_NU: np.ndarray
    sums_NH: np.ndarray

    @staticmethod
    def n_bytes(n_inputs: int) -> int:
        """Count the bytes of a row.

        Parameters
        ----------
        n_inputs : int
            Numbers that were rounded.

        Returns
        -------
        int
            A multiple of 64: codes, scales and sums, one behind the other, and padding.
        """
        return -(-n_blocks(n_inputs) * (BLOCK + 8) // LINE) * LINE

    @classmethod
    def of(cls, rounded_NP: np.ndarray, n_inputs: int) -> RoundedRows:
        """See the fields of rows.

        Parameters
        ----------
        rounded_NP : ndarray, (N, P), int8
            What `round_activations` returned.
        n_inputs : int
            Numbers that were rounded.

        Returns
        -------
        RoundedRows
            Views.
        """
        blocks = n_blocks(n_inputs)
        scales, sums, end = (blocks * size for size in (BLOCK, BLOCK + 4, BLOCK + 8))
        return cls(
            rounded_NP[:, :scales],
            rounded_NP[:, scales:sums].view(np.float32),
            rounded_NP[:, sums:end].view(np.int16),
        )


def round_activations(x_NI: np.ndarray, *, group: int, scale: float | None = None) -> np.ndarray:
    """Round rows to signed bytes, once for all the matrices that they meet.

    Parameters
    ----------
    x_NI : ndarray, (N, I), float32
        Activations.
    group : {0, 32}
        Inputs that share a scale; 0 for the whole row.
    scale : float, optional
        As of `ops.quantized.quantize_activations`.

    Returns
    -------
    ndarray, (N, P), int8
        Records whose fields `RoundedRows` tells: codes and scales, and the sums of codes by which products with
        unsigned codes are corrected.

    Notes
    -----
    The numbers of `ops.quantized.quantize_activations`, in one array.

    References
    ----------
    B. Jacob et al., 2017, arXiv 1712.05877, section 2.3 (sums that correct for zeros).

    Examples
    --------
    >>> import numpy as np
    >>> rounded_NP = round_activations(np.array([[1.0, -2.0]], np.float32), group=32)
    >>> codes_NI, scales_NU, sums_NH = RoundedRows.of(rounded_NP, 2)
    >>> codes_NI[:, :2], sums_NH[0, 0]
    (array([[  64, -127]], dtype=int8), np.int16(-63))
    """
    n_rows, n_inputs = x_NI.shape
    rounded_NP = np.zeros((n_rows, RoundedRows.n_bytes(n_inputs)), np.int8)
    codes, scales, sums = RoundedRows.of(rounded_NP, n_inputs)
    codes[:, :n_inputs], scales_NJ = quantize_activations(x_NI, group=group, scale=scale)
    used = -(-n_inputs // BLOCK)
    scales[:, :used] = scales_NJ if group == 0 else scales_NJ[:, :used]
    sums[...] = codes.reshape(n_rows, 2 * n_blocks(n_inputs), BLOCK // 2).sum(axis=2, dtype=np.int16)
    return rounded_NP


def panel_product(
    rounded_NP: np.ndarray,
    lines: np.ndarray,
    scales: np.ndarray,
    zeros: np.ndarray | None = None,
    b_O: np.ndarray | None = None,
    *,
    format: Format,
    group: int,
    n_inputs: int,
    n_outputs: int,
) -> np.ndarray:
    """Multiply rounded rows by the transpose of a quantized matrix in panels.

    Parameters
    ----------
    rounded_NP : ndarray, (N, P), int8
        What `round_activations` returned.
    lines : ndarray, (panels, blocks, bits, 64), uint8
        What `pack_panels` returned.
    scales : ndarray, (panels, J, 16), float16 or float32
        Scale of each group.
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
        The same as `ops.quantized.quantized_product_int8` of the matrix and the rows before they were rounded.

    Notes
    -----
    The sums of `ops.quantized.quantized_product_int8`, and the bias; 2NOI integer and 2NOJ float operations.

    References
    ----------
    B. Jacob et al., 2017, arXiv 1712.05877, section 2.3.

    Examples
    --------
    >>> import numpy as np
    >>> from minislm.ops.formats import format_named
    >>> int4, x_NI = format_named("int4"), np.array([[1.0, 127.0]], np.float32)
    >>> lines = pack_panels(np.array([[0x9A]], np.uint8), n_inputs=2, format=int4)  # two steps and one above zero
    >>> scales = pack_groups(np.array([[0.5]], np.float32))
    >>> panel_product(round_activations(x_NI, group=0), lines, scales, format=int4, group=0, n_inputs=2, n_outputs=1)
    array([[64.5]], dtype=float32)
    """
    x_codes, x_scales, _ = RoundedRows.of(rounded_NP, n_inputs)

    y_NO = product_of_codes(
        x_codes[:, :n_inputs],
        x_scales,
        lambda rows: _codes(lines, rows, n_inputs, format),
        unpack_groups(scales, n_outputs),
        None if zeros is None else unpack_groups(zeros, n_outputs),
        format=format,
        group=group,
    )
    return y_NO if b_O is None else y_NO + b_O


def decoded_panel_product(
    x_NI: np.ndarray,
    lines: np.ndarray,
    scales: np.ndarray,
    zeros: np.ndarray | None = None,
    b_O: np.ndarray | None = None,
    *,
    format: Format,
    n_outputs: int,
) -> np.ndarray:
    """Multiply float rows by the transpose of a quantized matrix in panels.

    Parameters
    ----------
    x_NI : ndarray, (N, I), float32 or float64
        Input rows.
    lines, scales, zeros : ndarray
        As of `panel_product`.
    b_O : ndarray, (O,), optional
        Bias, added in the end.
    format : Format
        What codes, scales and zeros mean.
    n_outputs : int
        Of the matrix.

    Returns
    -------
    ndarray, (N, O)
        The same as `ops.quantized.quantized_product` of the matrix, in the dtype of `x_NI`.

    Notes
    -----
    2NOI operations plus the decoding of OI codes to float32; sums and the bias in the dtype of `x_NI`.

    References
    ----------
    B. Jacob et al., 2017, arXiv 1712.05877, equation 1 (the values).

    Examples
    --------
    >>> import numpy as np
    >>> from minislm.ops.formats import format_named
    >>> int4, x_NI = format_named("int4"), np.array([[1.0, 10.0]], np.float32)
    >>> lines = pack_panels(np.array([[0x9A]], np.uint8), n_inputs=2, format=int4)  # two steps and one above zero
    >>> decoded_panel_product(x_NI, lines, pack_groups(np.array([[0.5]], np.float32)), format=int4, n_outputs=1)
    array([[6.]], dtype=float32)
    """
    n_inputs = x_NI.shape[1]
    scales_OJ = unpack_groups(scales, n_outputs)
    zeros_OJ = None if zeros is None else unpack_groups(zeros, n_outputs)

    def decode(rows: slice) -> np.ndarray:
        zeros = None if zeros_OJ is None else zeros_OJ[rows]
        return format.decode(_codes(lines, rows, n_inputs, format), scales_OJ[rows], zeros)

    y_NO = product_by_tiles(x_NI, n_outputs, decode)
    return y_NO if b_O is None else y_NO + b_O


def _codes(lines: np.ndarray, rows: slice, n_inputs: int, format: Format) -> np.ndarray:
    """Unpack the codes of some outputs, (outputs, I)."""
    first = rows.start // OUTPUTS
    panels = lines[first : -(-rows.stop // OUTPUTS)]
    return unpack_panels(panels, rows.stop - first * OUTPUTS, n_inputs, format=format)[rows.start % OUTPUTS :]
