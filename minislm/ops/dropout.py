"""Dropout whose randomness is a counter: no state, and the same entries dropped whoever computes them."""

from __future__ import annotations

import zlib

import numpy as np

from minislm.errors import UsageError

Saved = tuple[np.ndarray, float]

# SplitMix64: the step between two outputs, and the two multipliers of its mixing function.
_STEP, _MIX_1, _MIX_2, _WORD = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 2**64 - 1


def dropout(x: np.ndarray, *, rate: float, key: tuple[int, int, int, int]) -> tuple[np.ndarray, Saved]:
    """Zero each entry with a probability, and scale the others so that the expected value stays.

    Parameters
    ----------
    x : ndarray, any shape, float32 or float64
        Entries.
    rate : float
        Probability of being zeroed, at least 0 and less than 1.
    key : tuple of int
        (seed, step, microbatch, site): equal keys drop equal entries, and any difference drops others. `site` tells the
        dropouts of a model apart, see `site`.

    Returns
    -------
    y : ndarray
        Results, of the same shape.
    saved : tuple
        ``(kept, rate)`` with a bool for each entry, for `dropout_backward`.

    Raises
    ------
    UsageError
        Code ``bad_dropout_rate``.

    Notes
    -----
    ::

        y = x / (1 - rate) where kept, else 0

    Entry number i, counted in C order, is kept if output i of a SplitMix64 stream is at least rate 2⁶⁴; the stream
    starts where the key, mixed part by part, says. An entry's fate depends on key and number alone: not on the array's
    length, the order of work, or the number of threads. About 12 operations an entry.

    References
    ----------
    Srivastava et al. 2014, "Dropout", JMLR 15, section 4 (scaled here in training instead of afterwards). Counters:
    Salmon et al. 2011, doi:10.1145/2063384.2063405. The mixing function: Steele, Lea and Flood 2014,
    doi:10.1145/2660193.2660195.

    Examples
    --------
    >>> y, (kept, rate) = dropout(np.ones(100000), rate=0.2, key=(0, 0, 0, 0))
    >>> sorted(set(y.tolist())), round(float(kept.mean()), 2)
    ([0.0, 1.25], 0.8)
    """
    kept = (_stream(x.size, stream_start(key)) >= np.uint64(threshold(rate))).reshape(x.shape)
    y = x * kept
    y *= 1.0 / (1.0 - rate)
    return y, (kept, rate)


def dropout_backward(dy: np.ndarray, saved: Saved) -> np.ndarray:
    """Return the gradient of `dropout`'s entries.

    Parameters
    ----------
    dy : ndarray
        Gradient of `dropout`'s result.
    saved : tuple
        What `dropout` saved.

    Returns
    -------
    ndarray
        Gradient of `x`, of the same shape.

    Notes
    -----
    ::

        dx = dy / (1 - rate) where kept, else 0

    Examples
    --------
    >>> dropout_backward(np.array([1.0, 1.0]), (np.array([True, False]), 0.5))
    array([2., 0.])
    """
    kept, rate = saved
    dx: np.ndarray = dy * kept  # undo y = x * kept
    dx *= 1.0 / (1.0 - rate)  # undo y *= 1 / (1 - rate)
    return dx


def site(path: str) -> int:
    """Return the number that stands for a layer in a dropout key.

    Parameters
    ----------
    path : str
        The layer's path, such as ``blocks.0.attention``.

    Returns
    -------
    int
        From 0 to 2**32 - 1, the same on every machine.

    Examples
    --------
    >>> site("blocks.0.mlp")
    4116295145
    """
    return zlib.crc32(path.encode())


def threshold(rate: float) -> int:
    """Return what an output of the stream must reach for its entry to be kept.

    Parameters
    ----------
    rate : float
        Probability of being zeroed.

    Returns
    -------
    int
        ``rate`` times 2**64.

    Raises
    ------
    UsageError
        Code ``bad_dropout_rate``: less than 0, or 1 and more.
    """
    if not 0.0 <= rate < 1.0:
        raise UsageError("bad_dropout_rate", f"the dropout rate must be at least 0 and less than 1, not {rate}")
    return int(rate * 2.0**64)


def stream_start(key: tuple[int, int, int, int]) -> int:
    """Return where a key's stream starts.

    Parameters
    ----------
    key : tuple of int
        As of `dropout`.

    Returns
    -------
    int
        From 0 to 2**64 - 1: the key's parts, mixed in one after the other.
    """
    state = 0
    for part in key:
        state = ((state ^ (part & _WORD)) + _STEP) & _WORD
        state = ((state ^ (state >> 30)) * _MIX_1) & _WORD
        state = ((state ^ (state >> 27)) * _MIX_2) & _WORD
        state ^= state >> 31
    return state


def _stream(n: int, start: int) -> np.ndarray:
    """Return the first n outputs of the SplitMix64 stream that starts at `start`."""
    z = np.arange(1, n + 1, dtype=np.uint64)
    z *= np.uint64(_STEP)
    z += np.uint64(start)
    z ^= z >> np.uint64(30)
    z *= np.uint64(_MIX_1)
    z ^= z >> np.uint64(27)
    z *= np.uint64(_MIX_2)
    z ^= z >> np.uint64(31)
    return z
