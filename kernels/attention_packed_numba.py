"""Attention of packed sequences in compiled loops: each key is read once for all query heads that share it."""

from __future__ import annotations

import numpy as np
from numba import boolean, float32, int64, void

from minislm.kernels import border
from minislm.kernels.jit import LANES, compiled, exponential, largest, reads, shifted_dot, summed, writes


def attention_packed(
    q_NHK: np.ndarray,
    k_SGK: np.ndarray,
    v_SGK: np.ndarray,
    counts_B: np.ndarray,
    firsts_B: np.ndarray,
    lengths_B: np.ndarray,
    bias_HS1: np.ndarray | None = None,
    *,
    causal: bool = False,
    window: int | None = None,
    scale: float | None = None,
    cap: float | None = None,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Same as `ops.packed.attention_packed`; rows that are stored otherwise become float32 first."""
    q = border.checked(q_NHK, "q", 3)
    k, v = border.packed_rows(k_SGK, v_SGK)
    counts, firsts, lengths = border.packed_sequences(q, k, v, counts_B, firsts_B, lengths_B)
    if k.dtype != border.FLOAT32:
        ends = np.cumsum(lengths)
        rows = np.repeat(firsts - ends + lengths, lengths) + np.arange(lengths.sum())
        k, v, firsts = k[rows].astype(np.float32), v[rows].astype(np.float32), ends - lengths
    bias = border.biases(bias_HS1, q.shape[1])
    if bias is None:
        bias = np.zeros((q.shape[1], 1), np.float32)
    y = border.output(out, q.shape, q, k, v, bias)
    scale = q.shape[2] ** -0.5 if scale is None else scale
    _forward(q, k, v, counts, firsts, lengths, bias, causal, border.reach(window), scale, border.bound(cap), y)
    return border.delivered(y, out)


@compiled(
    void(
        *(reads(3), reads(3), reads(3), reads(1, int64), reads(1, int64), reads(1, int64), reads(2)),
        *(boolean, int64, float32, float32, writes(3)),
    )
)
def _forward(q_NHK, k_SGK, v_SGK, counts_B, firsts_B, lengths_B, bias_HS1, causal, window, scale, cap, y_NHK):  # type: ignore[no-untyped-def]
    n_heads, shared, reach = q_NHK.shape[1], q_NHK.shape[1] // k_SGK.shape[1], bias_HS1.shape[1] // 2
    part, n = np.empty(LANES, np.float32), 0
    for b in range(counts_B.size):
        p_HT = np.empty((n_heads, lengths_B[b]), np.float32)  # T: the keys of one sequence
        for position in range(lengths_B[b] - counts_B[b], lengths_B[b]):
            first, last = 0, lengths_B[b]
            if window:
                first, last = max(first, position - window + 1), min(last, position + window)
            if causal:
                last = min(last, position + 1)
            for t in range(first, last):  # positions outside, heads inside: as they lie in memory
                for h in range(n_heads):
                    score = shifted_dot(q_NHK[n, h], k_SGK[firsts_B[b] + t, h // shared], float32(0.0)) * scale
                    if cap > 0:
                        score = cap * np.tanh(score / cap)
                    p_HT[h, t] = score + bias_HS1[h, reach + max(-reach, min(reach, t - position))]
            for h in range(n_heads):
                p = p_HT[h, first:last]
                top = largest(p, part)
                if top == float32(-np.inf):
                    top = float32(0.0)
                for t in range(p.size):
                    p[t] = exponential(p[t] - top)
                total = summed(p)
                share = float32(1.0) / total if total != float32(0.0) else float32(1.0)
                for t in range(p.size):
                    p[t] *= share
                y_NHK[n, h, :] = float32(0.0)
            for t in range(first, last):
                for h in range(n_heads):
                    y_K, v_K = y_NHK[n, h], v_SGK[firsts_B[b] + t, h // shared]
                    for i in range(y_K.size):
                        y_K[i] += p_HT[h, t] * v_K[i]
            n += 1
