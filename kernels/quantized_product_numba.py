"""Products with a packed matrix in compiled loops: each row is decoded in the nearest cache and multiplied there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, int64, uint8, uint16, void

from minislm.kernels import border, compressed
from minislm.kernels.jit import compiled, decode, dot, reads, unpack_codes, writes
from minislm.kernels.quantized_rows_numba import decode_rows


def quantized_product(
    x_NI: np.ndarray,
    codes_OP: np.ndarray,
    scales_OJ: np.ndarray,
    zeros_OJ: np.ndarray | None = None,
    *,
    format: Any,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Same as `ops.quantized.quantized_product`."""
    x = border.checked(x_NI, "x", 2)
    codes, scales, zeros = compressed.packed(codes_OP, scales_OJ, zeros_OJ, format, None, x.shape[1])
    y = border.output(out, (len(x), len(codes)), x, scales)
    if len(x) > compressed.FEW:
        ids = np.arange(len(codes))
        compressed.by_tiles(
            x, y, lambda first, tile: decode_rows(ids[first : first + len(tile)], codes, scales, zeros, format, tile)
        )
    else:
        group = format.group or max(1, x.shape[1])
        _product(x, codes, *compressed.numba_meaning(scales, zeros, format), group, y)
    return border.delivered(y, out)


_packed = (reads(2, uint8), reads(2, uint16), reads(2), reads(2, uint8), int64, int64, reads(1, uint8), int64)


@compiled(void(reads(2), *_packed, writes(2, float32)))
def _product(x_NI, codes_OP, halves, floats, zeros, zero, bits, table, group, y_NO):  # type: ignore[no-untyped-def]
    codes, w = np.empty(x_NI.shape[1], np.uint8), np.empty(x_NI.shape[1], np.float32)
    for o in range(y_NO.shape[1]):
        unpack_codes(codes_OP[o], bits, table, codes)
        decode(codes, halves[o], floats[o], zeros[o], zero, group, w)
        for n in range(x_NI.shape[0]):
            y_NO[n, o] = dot(x_NI[n], w)
