"""One new token against the cache, in compiled loops: each key is read once for all query heads that share it."""

from __future__ import annotations

import numpy as np
from numba import float32, int64, void

from minislm.kernels import border
from minislm.kernels.jit import LANES, compiled, exponential, largest, reads, shifted_dot, summed, writes


def attention_one(
    q_BHK: np.ndarray,
    k_CSGK: np.ndarray,
    v_CSGK: np.ndarray,
    slots_B: np.ndarray,
    lengths_B: np.ndarray,
    *,
    window: int | None = None,
    scale: float | None = None,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Same as `ops.attention.attention_one`."""
    q, k, v, slots, lengths = border.cached_attention(q_BHK, k_CSGK, v_CSGK, slots_B, lengths_B)
    y = border.output(out, q.shape, q, k, v)
    scale = q.shape[2] ** -0.5 if scale is None else scale
    _forward(q, k, v, slots, lengths, border.reach(window), scale, y)
    return border.delivered(y, out)


@compiled(void(reads(3), reads(4), reads(4), reads(1, int64), reads(1, int64), int64, float32, writes(3)))
def _forward(q_BHK, k_CSGK, v_CSGK, slots_B, lengths_B, window, scale, y_BHK):  # type: ignore[no-untyped-def]
    shared = q_BHK.shape[1] // k_CSGK.shape[2]
    part, p_H1S = np.empty(LANES, np.float32), np.empty((shared, k_CSGK.shape[1]), np.float32)
    for b in range(q_BHK.shape[0]):
        last = lengths_B[b]
        first = max(0, last - window) if window else 0
        for g in range(k_CSGK.shape[2]):
            for s in range(first, last):
                k_K = k_CSGK[slots_B[b], s, g]
                for h in range(shared):
                    p_H1S[h, s] = shifted_dot(q_BHK[b, g * shared + h], k_K, float32(0.0), part) * scale
            for h in range(shared):
                p, y_K = p_H1S[h, first:last], y_BHK[b, g * shared + h]
                top = largest(p, part)
                if top == float32(-np.inf):
                    top = float32(0.0)
                for s in range(p.size):
                    p[s] = exponential(p[s] - top)
                total = summed(p, part)
                share = float32(1.0) / total if total != float32(0.0) else float32(1.0)
                y_K[:] = float32(0.0)
                for s in range(p.size):
                    v_K = v_CSGK[slots_B[b], first + s, g]
                    for i in range(y_K.size):
                        y_K[i] += p[s] * share * v_K[i]
