"""The optimizer's step: the one op that writes into its arguments."""

from __future__ import annotations

import math

import numpy as np

_BLOCK = 32768


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
) -> None:
    """Update parameters by AdamW, in place."""
    rate = learning_rate / (1.0 - beta1**step)
    unbias = 1.0 / math.sqrt(1.0 - beta2**step)
    for start in range(0, len(w), _BLOCK):
        part = slice(start, start + _BLOCK)
        w_part, dw_part, m_part, v_part = w[part], dw[part], m[part], v[part]
        decay_part = decay[part] if isinstance(decay, np.ndarray) else decay
        w_part *= 1.0 - learning_rate * decay_part
        m_part *= beta1
        m_part += (1.0 - beta1) * dw_part
        v_part *= beta2
        square = dw_part * dw_part
        square *= 1.0 - beta2
        v_part += square
        divisor = np.sqrt(v_part, out=square)
        divisor *= unbias
        divisor += eps
        np.divide(m_part, divisor, out=divisor)
        divisor *= rate
        w_part -= divisor
