"""Products with a bitmap matrix in compiled loops that visit what is stored."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numba import float32, int64, uint8

from minislm.kernels import border, compressed
from minislm.kernels.jit import compiled, dot, inlined, reads, writes
from minislm.kernels.quantized_rows_numba import stream_spans


def bitmap_product(
    x_NI: np.ndarray,
    mask_OP: np.ndarray,
    values: np.ndarray,
    starts: np.ndarray,
    scales: np.ndarray | None = None,
    zeros: np.ndarray | None = None,
    *,
    format: Any = None,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Same as `ops.bitmap.bitmap_product`."""
    x = border.checked(x_NI, "x", 2)
    mask = border.checked(mask_OP, "mask", 2, compressed.UINT8)
    border.same_shape(mask, "mask", (len(mask), -(-x.shape[1] // 8)))
    starts = compressed.rising_starts(starts, len(mask))
    values, scales, zeros = compressed.stored_values(values, scales, zeros, format, None, int(starts[-1]))
    y = border.output(out, (len(x), len(mask)), x)
    spans = partial(stream_spans, values, scales, zeros, format, starts)

    def decode(first: int, tile: np.ndarray) -> None:
        for row, kept, begins in spans(first, first + len(tile)):
            compressed.check_row(_place(mask, kept, begins, row, tile[row - first :]))

    if len(x) > compressed.FEW:
        compressed.by_tiles(x, y, decode)
    else:
        for row, kept, begins in spans(0, len(mask)):
            compressed.check_row(_multiply(x, mask, kept, begins, row, y))
    return border.delivered(y, out)


@inlined
def _list(mask_P, places):  # type: ignore[no-untyped-def]
    """List the inputs whose bits are set, and return how many these are."""
    count = 0
    for i in range(places.size):
        places[count] = i  # overwritten by the next one unless this bit is set
        count += (mask_P[i >> 3] >> (i & 7)) & 1
    return count


@compiled(int64(reads(2), reads(2, uint8), reads(1), reads(1, int64), int64, writes(2)))
def _multiply(x_NI, mask_OP, values, begins, row, y_NO):  # type: ignore[no-untyped-def]
    places = np.empty(x_NI.shape[1], np.int64)
    x = np.empty(x_NI.shape[1], np.float32)
    for k in range(begins.size - 1):
        count = begins[k + 1] - begins[k]
        if _list(mask_OP[row + k], places) != count:
            return row + k
        for n in range(x_NI.shape[0]):
            for u in range(count):
                x[u] = x_NI[n, places[u]]
            y_NO[n, row + k] = dot(x[:count], values[begins[k] : begins[k + 1]])
    return -1


@compiled(int64(reads(2, uint8), reads(1), reads(1, int64), int64, writes(2)))
def _place(mask_OP, values, begins, row, tile_OI):  # type: ignore[no-untyped-def]
    places = np.empty(tile_OI.shape[1], np.int64)
    for k in range(begins.size - 1):
        count = begins[k + 1] - begins[k]
        if _list(mask_OP[row + k], places) != count:
            return row + k
        tile_OI[k] = float32(0.0)
        for u in range(count):
            tile_OI[k, places[u]] = values[begins[k] + u]
    return -1
