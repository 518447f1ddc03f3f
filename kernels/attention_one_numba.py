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
    bias_HS1: np.ndarray | None = None,
    *,
    window: int | None = None,
    scale: float | None = None,
    cap: float | None = None,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Same as `ops.attention.attention_one`."""
    q, k, v, slots, lengths = border.cached_attention(q_BHK, k_CSGK, v_CSGK, slots_B, lengths_B)
    bias = border.biases(bias_HS1, q.shape[1])
    if bias is None:
        bias = np.zeros((q.shape[1], 1), np.float32)
    y = border.output(out, q.shape, q, k, v, bias)
    scale = q.shape[2] ** -0.5 if scale is None else scale
    _forward(q, k, v, slots, lengths, bias, border.reach(window), scale, border.bound(cap), y)
    return border.delivered(y, out)


@compiled(
    void(reads(3), reads(4), reads(4), reads(1, int64), reads(1, int64), reads(2), int64, float32, float32, writes(3))
)
def _forward(q_BHK, k_CSGK, v_CSGK, slots_B, lengths_B, bias_HS1, window, scale, cap, y_BHK):  # type: ignore[no-untyped-def]
    n_heads, shared, reach = q_BHK.shape[1], q_BHK.shape[1] // k_CSGK.shape[2], bias_HS1.shape[1] // 2
    part, p_HS = np.empty(LANES, np.float32), np.empty((n_heads, k_CSGK.shape[1]), np.float32)
    for b in range(q_BHK.shape[0]):
        slot, last = slots_B[b], lengths_B[b]
        first = max(0, last - window) if window else 0
        for s in range(first, last):  # positions outside, heads inside: as they lie in memory
            for h in range(n_heads):
                score = shifted_dot(q_BHK[b, h], k_CSGK[slot, s, h // shared], float32(0.0)) * scale
                if cap > 0:
                    score = cap * np.tanh(score / cap)
                p_HS[h, s] = score + bias_HS1[h, max(0, reach + s - last + 1)]
        for h in range(n_heads):
            p = p_HS[h, first:last]
            top = largest(p, part)
            if top == float32(-np.inf):
                top = float32(0.0)
            for s in range(p.size):
                p[s] = exponential(p[s] - top)
            total = summed(p)
            share = float32(1.0) / total if total != float32(0.0) else float32(1.0)
            for s in range(p.size):
                p[s] *= share
            y_BHK[b, h, :] = float32(0.0)
        for s in range(first, last):
            for h in range(n_heads):
                y_K, v_K = y_BHK[b, h], v_CSGK[slot, s, h // shared]
                for i in range(y_K.size):
                    y_K[i] += p_HS[h, s] * v_K[i]
