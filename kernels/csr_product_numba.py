"""Products with compressed rows in compiled loops that visit what is stored."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numba import float32, int32, int64

from minislm.kernels import border, compressed
from minislm.kernels.jit import compiled, dot, reads, writes
from minislm.kernels.quantized_rows_numba import stream_spans

INT32 = np.dtype(np.int32)


def csr_product(
    x_NI: np.ndarray,
    values: np.ndarray,
    columns: np.ndarray,
    starts: np.ndarray,
    scales: np.ndarray | None = None,
    zeros: np.ndarray | None = None,
    *,
    format: Any = None,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Same as `ops.csr.csr_product`."""
    x = border.checked(x_NI, "x", 2)
    columns = border.checked(columns, "columns", 1, INT32)
    n_outputs = len(starts) - 1
    starts = compressed.rising_starts(starts, n_outputs)
    border.same_shape(columns, "columns", (int(starts[-1]),))
    values, scales, zeros = compressed.stored_values(values, scales, zeros, format, None, len(columns))
    y = border.output(out, (len(x), n_outputs), x)
    spans = partial(stream_spans, values, scales, zeros, format, starts)

    def decode(first: int, tile: np.ndarray) -> None:
        for row, kept, begins in spans(first, first + len(tile)):
            compressed.check_row(_place(columns[starts[row] :], kept, begins, row, tile[row - first :]))

    if len(x) > compressed.FEW:
        compressed.by_tiles(x, y, decode)
    else:
        for row, kept, begins in spans(0, n_outputs):
            compressed.check_row(_multiply(x, columns[starts[row] :], kept, begins, row, y))
    return border.delivered(y, out)


@compiled(int64(reads(2), reads(1, int32), reads(1), reads(1, int64), int64, writes(2)))
def _multiply(x_NI, columns, values, begins, row, y_NO):  # type: ignore[no-untyped-def]
    x = np.empty(values.size, np.float32)
    for k in range(begins.size - 1):
        first, count = begins[k] - begins[0], begins[k + 1] - begins[k]
        for u in range(count):
            if not 0 <= columns[first + u] < x_NI.shape[1]:
                return row + k
        for n in range(x_NI.shape[0]):
            for u in range(count):
                x[u] = x_NI[n, columns[first + u]]
            y_NO[n, row + k] = dot(x[:count], values[begins[k] : begins[k + 1]])
    return -1


@compiled(int64(reads(1, int32), reads(1), reads(1, int64), int64, writes(2)))
def _place(columns, values, begins, row, tile_OI):  # type: ignore[no-untyped-def]
    for k in range(begins.size - 1):
        tile_OI[k] = float32(0.0)
        for u in range(begins[k], begins[k + 1]):
            column = columns[u - begins[0]]
            if not 0 <= column < tile_OI.shape[1]:
                return row + k
            tile_OI[k, column] = values[u]
    return -1
