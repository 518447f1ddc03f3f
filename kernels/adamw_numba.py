"""AdamW in one compiled pass over the four buffers."""

from __future__ import annotations

import numpy as np
from numba import float32, void

from minislm.kernels import border
from minislm.kernels.jit import compiled, reads, writes


def adamw(
    w: np.ndarray,
    dw: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    *,
    step: int,
    learning_rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float | np.ndarray,
    out: None = None,
    threads: int = 1,
) -> None:
    """Same as `ops.optimizer.adamw`: updates `w`, `m` and `v`, which must be C-contiguous; no `out`."""
    dw = border.checked(dw, "dw", 1)
    for array, name in ((w, "w"), (m, "m"), (v, "v")):
        border.updated(array, name, dw.shape)
    if isinstance(decay, np.ndarray):
        decay = border.checked(decay, "decay", 1)
        border.same_shape(decay, "decay", dw.shape)
    else:
        decay = np.full(1, decay, np.float32)
    rate, unbias = learning_rate / (1 - beta1**step), (1 - beta2**step) ** -0.5
    _update(w, dw, m, v, decay, learning_rate, beta1, 1 - beta1, beta2, 1 - beta2, eps, rate, unbias)


@compiled(void(writes(1), reads(1), writes(1), writes(1), reads(1), *(float32,) * 8))
def _update(w, dw, m, v, decay, learning_rate, beta1, rest1, beta2, rest2, eps, rate, unbias):  # type: ignore[no-untyped-def]
    same = decay.size == 1  # one number for all
    for i in range(w.size):
        m[i] = beta1 * m[i] + rest1 * dw[i]
        v[i] = beta2 * v[i] + rest2 * (dw[i] * dw[i])
        kept = float32(1.0) - learning_rate * decay[0 if same else i]
        w[i] = w[i] * kept - rate * (m[i] / (np.sqrt(v[i]) * unbias + eps))
