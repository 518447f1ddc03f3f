"""Positions as sines and cosines."""

from __future__ import annotations

import numpy as np


def sinusoidal_positions(n: int, d: int) -> np.ndarray:
    """Return the table of sines and cosines that tells positions apart."""
    p_TD = np.empty((n, d), np.float32)
    angles = np.arange(n)[:, None] * 10000.0 ** (-np.arange(0, d, 2) / d)
    p_TD[:, 0::2] = np.sin(angles)
    p_TD[:, 1::2] = np.cos(angles)[:, : d // 2]
    return p_TD
