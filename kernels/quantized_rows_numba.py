"""Rows of a packed matrix, unpacked and scaled in compiled loops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numba import float32, int64, uint8, uint16, void

from minislm.kernels import border, compressed
from minislm.kernels.jit import compiled, decode, reads, unpack_codes, writes


def quantized_rows(
    ids_N: np.ndarray,
    codes_OP: np.ndarray,
    scales_OJ: np.ndarray,
    zeros_OJ: np.ndarray | None = None,
    *,
    format: Any,
    n_inputs: int,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Same as `ops.quantized.quantized_rows`."""
    codes, scales, zeros = compressed.packed(codes_OP, scales_OJ, zeros_OJ, format, None, n_inputs)
    ids = border.integers(ids_N, "ids", 1)
    border.in_range(ids, "ids", 0, len(codes))
    w = border.output(out, (len(ids), n_inputs), scales)
    decode_rows(ids, codes, scales, zeros, format, w)
    return border.delivered(w, out)


def decode_rows(
    ids_N: np.ndarray,
    codes_OP: np.ndarray,
    scales_OJ: np.ndarray,
    zeros_OJ: np.ndarray | None,
    format: Any,
    w_NI: np.ndarray,
) -> None:
    """Write the rows `ids` of a checked matrix to w."""
    group = format.group or max(1, w_NI.shape[1])
    _decode(ids_N, codes_OP, *compressed.numba_meaning(scales_OJ, zeros_OJ, format), group, w_NI)


def stream_spans(
    values: np.ndarray,
    scales: np.ndarray | None,
    zeros: np.ndarray | None,
    format: Any,
    starts: np.ndarray,
    first: int,
    last: int,
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Cut rows of a stream into ranges: their first row, values as floats, and where in those the rows start.

    Packed values are decoded, at most `compressed.TILE` of them (or one row) at a time.
    """
    if format is None:
        yield first, values, starts[first : last + 1]
    while format is not None and first < last:
        end = int(np.searchsorted(starts[: last + 1], starts[first] + compressed.TILE, side="right")) - 1
        end = max(first + 1, end)
        unit = format.group or 8  # where both a byte and a scale begin
        begin = starts[first] // unit * unit
        groups = slice(begin // format.group if format.group else 0, None)
        part = np.empty((1, starts[end] - begin), np.float32)
        codes, zeros_1J = values[:, begin * format.bits // 8 :], None if zeros is None else zeros[:, groups]
        decode_rows(np.zeros(1, np.int64), codes, scales[:, groups], zeros_1J, format, part)
        yield first, part[0], starts[first : end + 1] - begin
        first = end


_packed = (reads(2, uint8), reads(2, uint16), reads(2), reads(2, uint8), int64, int64, reads(1, uint8), int64)


@compiled(void(reads(1, int64), *_packed, writes(2, float32)))
def _decode(ids_N, codes_OP, halves, floats, zeros, zero, bits, table, group, w_NI):  # type: ignore[no-untyped-def]
    codes = np.empty(w_NI.shape[1], np.uint8)
    for n in range(ids_N.size):
        o = ids_N[n]
        unpack_codes(codes_OP[o], bits, table, codes)
        decode(codes, halves[o], floats[o], zeros[o], zero, group, w_NI[n])
