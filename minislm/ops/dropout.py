"""Dropout whose randomness is a counter: no state, the same in every tier."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from minislm.errors import UsageError

_GAMMA, _MIX_1, _MIX_2, _WORD = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 2**64 - 1


def dropout(x: np.ndarray, *, rate: float, key: tuple[int, int, int, int]) -> tuple[np.ndarray, Any]:
    """Zero each entry with probability `rate`, and scale the rest so that the mean stays."""
    if not 0.0 <= rate < 1.0:
        raise UsageError("bad_dropout_rate", f"dropout rate must be at least 0 and less than 1, not {rate}")
    kept = (_hash(x.size, _start(key)) >= np.uint64(int(rate * 2.0**64))).reshape(x.shape)
    y = np.where(kept, x * (1.0 / (1.0 - rate)), x.dtype.type(0))
    return y, (kept, rate)


def dropout_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """Return the gradient of `dropout`'s `x`."""
    kept, rate = saved
    return np.where(kept, dy * (1.0 / (1.0 - rate)), dy.dtype.type(0))


def site(path: str) -> int:
    """Return the number that stands for a layer in a dropout key."""
    return zlib.crc32(path.encode())


def _start(key: tuple[int, int, int, int]) -> int:
    """Fold a key into the 64-bit start of its stream, one mixing step a part."""
    state = 0
    for part in key:
        state = (state ^ (part & _WORD)) + _GAMMA & _WORD
        state = (state ^ state >> 30) * _MIX_1 & _WORD
        state = (state ^ state >> 27) * _MIX_2 & _WORD
        state ^= state >> 31
    return state


def _hash(n: int, start: int) -> np.ndarray:
    """Return outputs 1 to n of the SplitMix64 stream that begins at `start`."""
    z = np.arange(1, n + 1, dtype=np.uint64)
    z *= np.uint64(_GAMMA)
    z += np.uint64(start)
    z ^= z >> np.uint64(30)
    z *= np.uint64(_MIX_1)
    z ^= z >> np.uint64(27)
    z *= np.uint64(_MIX_2)
    z ^= z >> np.uint64(31)
    return z
