"""Cross-entropy in compiled loops; the backward computes the probabilities again, in place of N x V floats kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, int64, void

from minislm.kernels import border
from minislm.kernels.jit import LANES, compiled, exponential, largest, reads, summed, writes
from minislm.ops import loss


def cross_entropy(
    logits_NV: np.ndarray,
    targets_N: np.ndarray,
    *,
    ignore: int = -100,
    label_smoothing: float = 0.0,
    out: None = None,
    threads: int = 1,
) -> tuple[float, Any]:
    """Same as `ops.loss.cross_entropy`; `out` is not used, the result being a number."""
    logits, targets = border.checked(logits_NV, "logits", 2), border.integers(targets_N, "targets", 1)
    border.same_shape(targets, "targets", logits.shape[:1])
    kept = targets[targets != ignore]
    if kept.size and not 0 <= kept.min() <= kept.max() < logits.shape[1]:
        return loss.cross_entropy(logits, targets, ignore=ignore)  # which says what is wrong with the targets
    top, total, losses = (np.empty(len(logits), np.float32) for _ in range(3))
    _forward(logits, targets, ignore, label_smoothing, top, total, losses)
    mean = float(losses.sum(dtype=np.float64)) / max(kept.size, 1)
    return mean, (logits, top, total, targets_N, ignore, label_smoothing)


def cross_entropy_backward(dloss: float, saved: Any, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """Same as `ops.loss.cross_entropy_backward`."""
    logits_NV, top_N, total_N, targets_N, ignore, label_smoothing = saved
    logits = border.checked(logits_NV, "logits", 2)
    top, total = border.checked(top_N, "top", 1), border.checked(total_N, "total", 1)
    targets = border.integers(targets_N, "targets", 1)
    border.same_shape(top, "top", logits.shape[:1])
    border.same_shape(total, "total", logits.shape[:1])
    border.same_shape(targets, "targets", logits.shape[:1])
    kept = targets[targets != ignore]
    border.in_range(kept, "targets", 0, logits.shape[1])
    dlogits = border.output(out, logits.shape, logits, top, total)
    _backward(dloss / max(kept.size, 1), logits, top, total, targets, ignore, label_smoothing, dlogits)
    return border.delivered(dlogits, out)


@compiled(void(reads(2), reads(1, int64), int64, float32, writes(1), writes(1), writes(1)))
def _forward(logits_NV, targets_N, ignore, smoothing, top_N, total_N, loss_N):  # type: ignore[no-untyped-def]
    n, v = logits_NV.shape
    part, e_V = np.empty(LANES, np.float32), np.empty(v, np.float32)
    for i in range(n):
        x_V = logits_NV[i]
        top = largest(x_V, part)
        if top == float32(-np.inf):
            top = float32(0.0)
        for j in range(v):
            e_V[j] = exponential(x_V[j] - top)
        total = summed(e_V)
        if total == float32(0.0):
            total = float32(1.0)
        top_N[i], total_N[i], loss_N[i] = top, total, float32(0.0)
        if targets_N[i] != ignore:
            loss_N[i] = (float32(1.0) - smoothing) * (np.log(total) - (x_V[targets_N[i]] - top))
            if smoothing:
                loss_N[i] += smoothing * (np.log(total) - (summed(x_V) / float32(v) - top))


@compiled(void(float32, reads(2), reads(1), reads(1), reads(1, int64), int64, float32, writes(2)))
def _backward(share, logits_NV, top_N, total_N, targets_N, ignore, smoothing, dlogits_NV):  # type: ignore[no-untyped-def]
    n, v = logits_NV.shape
    even = share * smoothing / float32(v)
    for i in range(n):
        x_V, dx_V, top, factor = logits_NV[i], dlogits_NV[i], top_N[i], share / total_N[i]
        if targets_N[i] == ignore:
            dx_V[:] = float32(0.0)
            continue
        for j in range(v):
            dx_V[j] = exponential(x_V[j] - top) * factor - even
        dx_V[targets_N[i]] -= share * (float32(1.0) - smoothing)
