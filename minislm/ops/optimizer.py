"""The optimizer's step: the only op that writes into its arguments."""

from __future__ import annotations

import math

import numpy as np

_BLOCK = 16384  # parameters at a time, so that the temporaries stay in the processor's cache


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
    """Update parameters by AdamW, in place.

    The exception to the purity of ops: copies of all parameters and moments at every step would double the memory of
    training and the time of this step.

    Parameters
    ----------
    w : ndarray, flat, float32 or float64
        Parameters; changed.
    dw : ndarray, like `w`
        Their gradients; only read.
    m : ndarray, like `w`
        Running mean of the gradients, zeros before the first step; changed.
    v : ndarray, like `w`
        Running mean of their squares, zeros before the first step; changed.
    step : int
        Number of this step, from 1.
    learning_rate : float
        How far a parameter moves when its gradient is steady.
    beta1, beta2 : float
        How slowly `m` and `v` forget.
    eps : float
        Added to the divisor.
    decay : float or ndarray like `w`
        Weight decay, multiplied by the learning rate only; an array gives each parameter its own.

    Notes
    -----
    ::

        w ← w - learning_rate decay w
        m ← beta1 m + (1 - beta1) dw           m̂ = m / (1 - beta1^step)
        v ← beta2 v + (1 - beta2) dw²          v̂ = v / (1 - beta2^step)
        w ← w - learning_rate m̂ / (√v̂ + eps)

    The corrected moments of the right column are not formed: their constants go into the learning rate and the divisor.
    About 15 operations and 28 bytes (float32) a parameter, in the dtype of `w`.

    References
    ----------
    Loshchilov and Hutter 2017, arXiv:1711.05101, algorithm 2. The moments: Kingma and Ba 2014, arXiv:1412.6980,
    algorithm 1.

    Examples
    --------
    >>> w, m, v = np.array([1.0, -1.0]), np.zeros(2), np.zeros(2)
    >>> adamw(w, np.array([0.5, 20.0]), m, v, step=1, learning_rate=0.1, beta1=0.9, beta2=0.99, eps=0.0, decay=0.0)
    >>> w.round(6)  # the first step has the learning rate's size, whatever the gradient's
    array([ 0.9, -1.1])
    """
    rate = learning_rate / (1.0 - beta1**step)
    unbias = 1.0 / math.sqrt(1.0 - beta2**step)
    for start in range(0, len(w), _BLOCK):
        part = slice(start, start + _BLOCK)
        w_part, dw_part, m_part, v_part = w[part], dw[part], m[part], v[part]
        w_part *= 1.0 - learning_rate * (decay[part] if isinstance(decay, np.ndarray) else decay)
        m_part *= beta1
        m_part += (1.0 - beta1) * dw_part
        v_part *= beta2
        change = dw_part * dw_part
        change *= 1.0 - beta2
        v_part += change
        np.sqrt(v_part, out=change)
        change *= unbias
        change += eps
        np.divide(m_part, change, out=change)
        change *= rate
        w_part -= change
