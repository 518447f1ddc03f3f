"""Products with an n:m matrix in compiled loops that visit what is stored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, int64, uint8, void

from minislm.kernels import border, compressed
from minislm.kernels.jit import compiled, dot, reads, unpack, writes
from minislm.kernels.quantized_rows_numba import decode_rows
from minislm.ops.nm import place_bits


def nm_product(
    x_NI: np.ndarray,
    values: np.ndarray,
    places_OP: np.ndarray,
    scales: np.ndarray | None = None,
    zeros: np.ndarray | None = None,
    *,
    n: int,
    m: int,
    format: Any = None,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Same as `ops.nm.nm_product`."""
    x = border.checked(x_NI, "x", 2)
    n_values = compressed.nm_values(x.shape[1], n, m)
    places = border.checked(places_OP, "places", 2, compressed.UINT8)
    border.same_shape(places, "places", (len(places), -(-n_values * place_bits(m) // 8)))
    values, scales, zeros = compressed.stored_values(values, scales, zeros, format, len(places), n_values)
    y = border.output(out, (len(x), len(places)), x)

    def read(first: int, last: int) -> np.ndarray:
        if format is None:
            return values[first:last]
        kept_OU = np.empty((last - first, n_values), np.float32)
        decode_rows(np.arange(first, last), values, scales, zeros, format, kept_OU)
        return kept_OU

    def decode(first: int, tile: np.ndarray) -> None:
        last = first + len(tile)
        _place(read(first, last), places[first:last], n, m, place_bits(m), tile)

    if len(x) > compressed.FEW:
        compressed.by_tiles(x, y, decode)
    else:
        step = max(1, compressed.TILE // max(1, n_values))
        x = compressed.nm_padded(x, n_values // n, m)
        for first in range(0, len(places), step):
            last = min(first + step, len(places))
            _multiply(x, read(first, last), places[first:last], n, m, place_bits(m), first, y)
    return border.delivered(y, out)


@compiled(void(reads(2), reads(2), reads(2, uint8), int64, int64, int64, int64, writes(2)))
def _multiply(x_NI, values_OU, places_OP, n, m, bits, row, y_NO):  # type: ignore[no-untyped-def]
    n_values = values_OU.shape[1]
    places, inputs = np.empty(n_values, np.uint8), np.empty(n_values, np.int64)
    x, groups = np.empty(n_values, np.float32), np.empty(n_values, np.int64)
    for k in range(n_values):
        groups[k] = k // n * m
    for o in range(values_OU.shape[0]):
        unpack(places_OP[o], bits, places)
        for k in range(n_values):
            inputs[k] = groups[k] + np.int64(places[k])
        for t in range(x_NI.shape[0]):
            x_I = x_NI[t]
            for k in range(n_values):
                x[k] = x_I[inputs[k]]
            y_NO[t, row + o] = dot(x, values_OU[o])


@compiled(void(reads(2), reads(2, uint8), int64, int64, int64, writes(2)))
def _place(values_OU, places_OP, n, m, bits, tile_OI):  # type: ignore[no-untyped-def]
    places = np.empty(values_OU.shape[1], np.uint8)
    for o in range(values_OU.shape[0]):
        unpack(places_OP[o], bits, places)
        tile_OI[o] = float32(0.0)
        for k in range(places.size):
            i = k // n * m + np.int64(places[k])
            if i < tile_OI.shape[1]:
                tile_OI[o, i] = values_OU[o, k]
