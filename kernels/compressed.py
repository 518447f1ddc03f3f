"""What the kernels of compressed matrices share: checks at the border, and products by decoded tiles.

For few rows of x a kernel multiplies what is stored; for many it decodes some rows of the matrix at a time, and these
are multiplied while they are still in the cache: by BLAS where Numba decodes, by tiles of their own in C.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minislm.kernels import border
from minislm.ops.block_panels import CODES
from minislm.ops.nm import place_bits
from minislm.ops.panels import BLOCK, LINE, OUTPUTS, n_blocks

PADDING = 256
"""Of rows of x that compiled code reads in blocks."""
UINT8, UINT16, INT32 = np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.int32)
FLOAT16 = np.dtype(np.float16)
FEW = 16
"""Up to so many rows of x the stored form is multiplied directly; the C has room for no more."""
TILE = 2**18
"""Decoded numbers that are alive at once: 1 MiB, which the second cache holds."""


def packed(
    codes: Any, scales: Any, zeros: Any, format: Any, n_rows: int | None, n_inputs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Check the arrays of a packed matrix of `n_inputs` columns; the rows are told by `codes` if `n_rows` is None."""
    codes = border.checked(codes, "codes", 2, UINT8)
    shape = (len(codes) if n_rows is None else n_rows, format.n_groups(n_inputs))
    border.same_shape(codes, "codes", (shape[0], format.row_bytes(n_inputs)))
    half = isinstance(scales, np.ndarray) and scales.dtype == FLOAT16
    scales = border.checked(scales, "scales", 2, FLOAT16 if half else border.FLOAT32)
    border.same_shape(scales, "scales", shape)
    if zeros is not None:
        zeros = border.checked(zeros, "zeros", 2, UINT8)
        border.same_shape(zeros, "zeros", shape)
    return codes, scales, zeros


def in_panels(
    lines: Any, scales: Any, zeros: Any, format: Any, n_inputs: int, n_outputs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Check the arrays of a quantized matrix in panels."""
    lines = border.checked(lines, "lines", 4, UINT8)
    border.same_shape(lines, "lines", (-(-n_outputs // OUTPUTS), n_blocks(n_inputs), format.bits, LINE))
    return lines, *panel_groups(scales, zeros, format, n_inputs, n_outputs)


def panel_groups(
    scales: Any, zeros: Any, format: Any, n_inputs: int, n_outputs: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Check the scales and zeros of panels."""
    groups = (-(-n_outputs // OUTPUTS), format.n_groups(n_inputs), OUTPUTS)
    scales = border.checked(scales, "scales", 3, FLOAT16 if format.group else border.FLOAT32)
    border.same_shape(scales, "scales", groups)
    if zeros is not None:
        zeros = border.checked(zeros, "zeros", 3, UINT8)
        border.same_shape(zeros, "zeros", groups)
    return scales, zeros


def in_masked_panels(
    masks: Any, values: Any, starts: Any, dtype: np.dtype, n_inputs: int, n_outputs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Check the arrays of a `MaskedLayout`; whether they fit together is for the kernel to see."""
    n_panels = -(-n_outputs // OUTPUTS)
    masks = border.checked(masks, "masks", 2, UINT16)
    border.same_shape(masks, "masks", (n_panels, n_blocks(n_inputs) * BLOCK))
    starts = border.checked(starts, "starts", 1, border.INT64)
    border.same_shape(starts, "starts", (n_panels + 1,))
    values = border.checked(values, "values", 1, dtype)
    if starts[0] != 0 or len(values) != starts[-1] + LINE:
        raise ValueError(
            f"{len(values)} values and what follows them do not fit starts from {starts[0]} to {starts[-1]}"
        )
    return masks, values, starts


def in_block_sparse_panels(
    lines: Any, columns: Any, starts: Any, scales: Any, zeros: Any, format: Any, n_outputs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Check the arrays of a `BlockLayout`; whether its columns lie in the matrix is for the kernel to see."""
    if n_outputs % OUTPUTS:
        raise ValueError(f"the outputs of blocks must be a multiple of {OUTPUTS}, not {n_outputs}")
    lines = border.checked(lines, "lines", 3, UINT8)
    border.same_shape(lines, "lines", (len(lines), format.bits, LINE))
    columns = border.checked(columns, "columns", 1, INT32)
    border.same_shape(columns, "columns", (len(lines),))
    starts = border.checked(starts, "starts", 1, border.INT64)
    border.same_shape(starts, "starts", (n_outputs // OUTPUTS + 1,))
    scales = border.checked(scales, "scales", 3, FLOAT16 if format.group else border.FLOAT32)
    border.same_shape(scales, "scales", (len(lines), 1, OUTPUTS))
    if zeros is not None:
        zeros = border.checked(zeros, "zeros", 3, UINT8)
        border.same_shape(zeros, "zeros", scales.shape)
    return lines, columns, starts, scales, zeros


def check_panels(bad: np.ndarray) -> None:
    """Raise ValueError if a kernel has met a panel whose index does not fit; it has left 0 otherwise."""
    if bad[0]:
        raise ValueError(f"the masks of panel {bad[0] - 1}, or its columns, do not fit what it stores")


def in_block_panels(
    lines: Any, scales: Any, supers: Any, least: Any, format: Any, n_inputs: int, n_outputs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Check the arrays of a matrix of two levels in panels."""
    codes, n_panels, n_supers = CODES[format.name], -(-n_outputs // OUTPUTS), -(-n_inputs // format.inputs)
    lines = border.checked(lines, "lines", 4, UINT8)
    border.same_shape(lines, "lines", (n_panels, n_blocks(n_inputs), codes.bits, LINE))
    groups = (n_panels, n_supers * (8 if codes.bits == 4 else 16), OUTPUTS)
    scales = border.checked(scales, "scales", 3, UINT8)
    border.same_shape(scales, "scales", groups)
    supers = border.checked(supers, "supers", 3, FLOAT16)
    border.same_shape(supers, "supers", (n_panels, n_supers * (2 if codes.bits == 4 else 1), OUTPUTS))
    if (least is None) == (codes.bits == 4):
        raise ValueError(f"{format} takes least, and no other format does")
    if least is not None:
        least = border.checked(least, "least", 3, UINT8)
        border.same_shape(least, "least", groups)
    return lines, scales, supers, least


def bias(b_O: Any, n_outputs: int) -> np.ndarray | None:
    """Check a bias; None: there is none."""
    if b_O is None:
        return None
    b = border.checked(b_O, "b", 1)
    border.same_shape(b, "b", (n_outputs,))
    return b


def padded(x_NI: np.ndarray, multiple: int, more: int = 0) -> np.ndarray:
    """Return x with zeros behind its rows, up to a multiple and `more`; x itself if it has that width."""
    n_rows, n_inputs = x_NI.shape
    width = -(-(n_inputs + more) // multiple) * multiple
    if width == n_inputs:
        return x_NI
    wider = np.zeros((n_rows, width), x_NI.dtype)
    wider[:, :n_inputs] = x_NI
    return wider


def by_tiles(x_NI: np.ndarray, y_NO: np.ndarray, decode: Callable[[int, np.ndarray], None]) -> None:
    """Write ``x @ W.T`` to y, where ``decode(first, tile)`` fills `tile` with the rows of W from `first` on."""
    n_inputs, n_outputs = x_NI.shape[1], y_NO.shape[1]
    step = max(1, TILE // max(1, n_inputs))
    room = np.empty((min(step, n_outputs), n_inputs), np.float32)
    for first in range(0, n_outputs, step):
        tile = room[: n_outputs - first]
        decode(first, tile)
        np.matmul(x_NI, tile.T, out=y_NO[:, first : first + len(tile)])


def numba_meaning(scales_OJ: np.ndarray, zeros_OJ: np.ndarray | None, format: Any) -> tuple[Any, ...]:
    """Return what codes mean, as `jit` takes it.

    The bits of float16 scales, or float32 ones, and zeros: empty rows for none; the zero of all; bits; and the table,
    whose zero is 128, empty for none.
    """
    none = np.empty((len(scales_OJ), 0), np.uint16)
    half = scales_OJ.dtype == FLOAT16
    zeros = none.astype(np.uint8) if zeros_OJ is None else zeros_OJ
    scales = (scales_OJ.view(np.uint16), none.astype(np.float32)) if half else (none, scales_OJ)
    if format.table is None:
        return *scales, zeros, format.zero, format.bits, np.empty(0, np.uint8)
    return *scales, zeros, 128, format.bits, format.table


def stored_values(
    values: Any, scales: Any, zeros: Any, format: Any, n_rows: int | None, n_values: int
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Check the stored values of a sparse matrix: `n_rows` of `n_values`, or one stream of them if `n_rows` is None."""
    if format is not None:
        return packed(values, scales, zeros, format, 1 if n_rows is None else n_rows, n_values)
    values = border.checked(values, "values", 1 if n_rows is None else 2)
    border.same_shape(values, "values", (n_values,) if n_rows is None else (n_rows, n_values))
    return values, None, None


def stream_starts(starts: Any, n_outputs: int) -> np.ndarray:
    """Check where the rows of a stream start: the first of them at 0. Whether they rise is for the kernel to see."""
    starts = border.checked(starts, "starts", 1, border.INT64)
    border.same_shape(starts, "starts", (max(n_outputs, 0) + 1,))
    if starts[0] != 0:
        raise ValueError(f"starts must begin with 0, not {starts[0]}")
    return starts


def rising_starts(starts: Any, n_outputs: int) -> np.ndarray:
    """Check where the rows of a stream start: the first of them at 0, and no one before the one above."""
    starts = stream_starts(starts, n_outputs)
    if (starts[1:] < starts[:-1]).any():
        raise ValueError("starts must never fall")
    return starts


def check_row(bad: int) -> None:
    """Raise ValueError if a compiled loop has stopped at a row whose index does not fit; it returns -1 if none."""
    if bad >= 0:
        raise ValueError(f"the mask or columns of row {bad} do not fit the values and inputs")


def nm_values(n_inputs: int, n: int, m: int) -> int:
    """Return how many values a row of n:m stores; ValueError for an impossible pattern."""
    if not 0 < n < m <= 256:
        raise ValueError(f"n:m must be such that 0 < n < m <= 256, not {n}:{m}")
    return -(-n_inputs // m) * n


def nm_padded(x_NI: np.ndarray, n_groups: int, m: int) -> np.ndarray:
    """Return x so wide that no place of any group lies beyond it, not even a wrong one that its bits can hold."""
    beyond = 2 ** place_bits(m) - m
    return padded(x_NI, PADDING, n_groups * m - x_NI.shape[1] + beyond)
