"""Attention of packed sequences: one call for a whole pass, whatever the sequences' lengths."""

from __future__ import annotations

import numpy as np

from minislm.ops.attention import attention


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
) -> np.ndarray:
    """Attend from the queries of some sequences, packed one after the other, to the keys and values of each.

    Parameters
    ----------
    q_NHK : ndarray, (N, H, K), float32 or float64
        Queries, sequence after sequence.
    k_SGK, v_SGK : ndarray, (S, G, K)
        Rows of keys and values: a cache's slots end to end, or those of packed sequences; H is a multiple of G.
    counts_B : ndarray of int, (B,)
        Queries of each sequence; their sum is N.
    firsts_B : ndarray of int, (B,)
        The row of each sequence's first key.
    lengths_B : ndarray of int, (B,)
        Keys of each, one row after the other. Its last query stands at the last of them.
    bias_HS1 : ndarray, (H, S1), optional
        As of `attention`.
    causal, window, scale, cap : optional
        As of `attention`.

    Returns
    -------
    ndarray, (N, H, K)
        Mixed values; zeros for a query that sees no key.

    Notes
    -----
    `attention`, sequence by sequence. 4 H K operations for each pair of a query and a key that it sees. With one query
    to a sequence, reading the 2 G K numbers of each key is what takes the time.

    References
    ----------
    Vaswani et al. 2017, arXiv:1706.03762, equation 1; Shazeer 2019, arXiv:1911.02150, section 2.4 (incremental).

    Examples
    --------
    >>> k_SGK = np.array([7.0, 1.0, 5.0, 9.0]).reshape(4, 1, 1)
    >>> firsts_B, lengths_B = np.array([2, 0]), np.array([2, 1])
    >>> attention_packed(np.zeros((2, 1, 1)), k_SGK, k_SGK, np.array([1, 1]), firsts_B, lengths_B).ravel()
    array([7., 7.])
    """
    y_NHK = np.empty(q_NHK.shape, q_NHK.dtype)
    end = 0
    for count, first, length in zip(counts_B.tolist(), firsts_B.tolist(), lengths_B.tolist(), strict=True):
        rows, keys, end = slice(end, end + count), slice(first, first + length), end + count
        arrays = q_NHK[None, rows], k_SGK[None, keys], v_SGK[None, keys], bias_HS1
        start = np.array([length - count])
        y, _ = attention(*arrays, causal=causal, window=window, starts_B=start, scale=scale, cap=cap)
        y_NHK[rows] = y[0]
    return y_NHK
