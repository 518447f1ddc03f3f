"""Activations rounded to signed bytes, in compiled loops."""

from __future__ import annotations

import numpy as np
from numba import float32, int8, int64, void

from minislm.kernels import border
from minislm.kernels.jit import compiled, reads, writes


def quantize_activations(
    x_NI: np.ndarray, *, group: int, scale: float | None = None, out: np.ndarray | None = None, threads: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Same as `ops.quantized.quantize_activations`."""
    x = border.checked(x_NI, "x", 2)
    if group < 0:
        raise ValueError(f"group must be at least 0, not {group}")
    group = group or max(1, x.shape[1])
    codes = np.empty(x.shape, np.int8)
    scales = np.empty((len(x), max(1, -(-x.shape[1] // group))), np.float32)
    _round(x, group, -1.0 if scale is None else scale, codes, scales)
    if out is None:
        return codes, scales
    border.same_shape(out, "out", codes.shape)
    out[...] = codes
    return out, scales


@compiled(void(reads(2), int64, float32, writes(2, int8), writes(2)))
def _round(x_NI, group, given, codes_NI, scales_NJ):  # type: ignore[no-untyped-def]
    given = float32(given)  # below 0: none, each group has its own
    for n in range(x_NI.shape[0]):
        for j in range(scales_NJ.shape[1]):
            first, last = j * group, min((j + 1) * group, x_NI.shape[1])
            largest, finite = float32(0.0), True
            for i in range(first, last):
                size = abs(x_NI[n, i])
                largest = size if size > largest else largest
                finite = finite and size < float32(np.inf)
            size, steps = (largest, float32(127.0)) if given < 0 else (given, float32(1.0))
            usable = finite and size >= float32(2.0**-120)
            inverse = steps / size if usable else float32(0.0)
            scales_NJ[n, j] = size / steps if usable else float32(0.0) if finite else float32(np.nan)
            for i in range(first, last):
                code = np.rint(x_NI[n, i] * inverse) if usable else float32(0.0)
                codes_NI[n, i] = np.int8(min(max(code, float32(-127.0)), float32(127.0)))
