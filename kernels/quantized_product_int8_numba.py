"""Products of bytes in compiled loops: whole numbers add up exactly, in 32 bits for as long as those suffice.

Without instructions for bytes BLAS wins from some rows on: more of them are rounded, and multiplied as floats.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, int8, int64, uint8, uint16, void

from minislm.kernels import border, compressed
from minislm.kernels.jit import compiled, inlined, reads, unpack_codes, widened, writes
from minislm.kernels.quantize_activations_numba import quantize_activations
from minislm.kernels.quantized_product_numba import quantized_product
from minislm.ops.quantized import activation_group

EXACT = 2**15  # so many products of 255 and 128 cannot overflow 32 bits


def quantized_product_int8(
    x_NI: np.ndarray,
    codes_OP: np.ndarray,
    scales_OJ: np.ndarray,
    zeros_OJ: np.ndarray | None = None,
    *,
    format: Any,
    activations: str,
    activation_scale: float | None = None,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Same as `ops.quantized.quantized_product_int8`."""
    x_group = activation_group(activations, activation_scale)
    x = border.checked(x_NI, "x", 2)
    whole = max(1, x.shape[1])
    x_group, group = x_group or whole, format.group or whole
    x_codes, x_scales = quantize_activations(x, group=x_group, scale=activation_scale)
    if len(x) > compressed.FEW:
        rounded = x_codes * np.repeat(x_scales, x_group, axis=1)[:, : x.shape[1]]
        return quantized_product(rounded, codes_OP, scales_OJ, zeros_OJ, format=format, out=out, threads=threads)
    codes, scales, zeros = compressed.packed(codes_OP, scales_OJ, zeros_OJ, format, None, x.shape[1])
    y = border.output(out, (len(x), len(codes)), x, scales)
    _product(x_codes, x_scales, x_group, codes, *compressed.numba_meaning(scales, zeros, format), group, y)
    return border.delivered(y, out)


_packed = (reads(2, uint8), reads(2, uint16), reads(2), reads(2, uint8), int64, int64, reads(1, uint8), int64)


@inlined
def _dot(codes, x, zero):  # type: ignore[no-untyped-def]
    """Sum of (code - zero) * x, in 32 bits."""
    total = np.int32(0)
    for i in range(codes.size):
        total = np.int32(total + np.int32(np.int32(codes[i]) - zero) * np.int32(x[i]))
    return total


@compiled(void(reads(2, int8), reads(2), int64, *_packed, writes(2)))
def _product(x_NI, x_scales_NJ1, x_group, codes_OP, halves, floats, zeros, zero, bits, table, group, y_NO):  # type: ignore[no-untyped-def]
    codes = np.empty(x_NI.shape[1], np.uint8)
    segment = min(x_group, group)
    for o in range(y_NO.shape[1]):
        unpack_codes(codes_OP[o], bits, table, codes)
        for n in range(x_NI.shape[0]):
            total = float32(0.0)
            for first in range(0, codes.size, segment):
                j, last = first // group, min(first + segment, codes.size)
                scale = widened(halves[o, j]) if halves.size else floats[o, j]
                base = np.int32(zeros[o, j] if zeros.size else zero)
                exact = np.int64(0)
                for start in range(first, last, EXACT):
                    end = min(start + EXACT, last)
                    exact += _dot(codes[start:end], x_NI[n, start:end], base)
                total += float32(exact) * (x_scales_NJ1[n, first // x_group] * scale)
            y_NO[n, o] = total
