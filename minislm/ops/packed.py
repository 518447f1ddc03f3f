"""Attention of packed sequences, one call for a whole pass; and how a cache stores the rows of their keys and values.

Rows are stored as float32, as float16, or as signed bytes with one scale for each head of a row.
"""

from __future__ import annotations

import numpy as np

from minislm.ops.attention import attention
from minislm.ops.quantized import quantize_activations

STORED = ("float32", "float16", "int8")
"""Dtypes that rows of keys and values may be stored in."""

MOST_HALF = 65504.0  # what float16 can hold


def rounded_up(longest: int) -> int:
    """Return the room that kernels make for sequences and positions, which grow by a token at a time.

    Parameters
    ----------
    longest : int
        Positions of the longest.

    Returns
    -------
    int
        The next power of two, at least 64.
    """
    return max(64, 1 << (int(longest) - 1).bit_length())


def attention_packed(
    q_NHK: np.ndarray,
    k_SGK: np.ndarray,
    v_SGK: np.ndarray,
    counts_B: np.ndarray,
    firsts_B: np.ndarray,
    lengths_B: np.ndarray,
    bias_HS1: np.ndarray | None = None,
    k_scales_SG: np.ndarray | None = None,
    v_scales_SG: np.ndarray | None = None,
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
    k_SGK, v_SGK : ndarray, (S, G, K), float32, float16 or int8
        Rows of keys and values: a cache's slots end to end, or those of packed sequences; H is a multiple of G. Both
        in one dtype; in float64 where `q_NHK` is.
    counts_B : ndarray of int, (B,)
        Queries of each sequence; their sum is N.
    firsts_B : ndarray of int, (B,)
        The row of each sequence's first key.
    lengths_B : ndarray of int, (B,)
        Keys of each, one row after the other. Its last query stands at the last of them.
    bias_HS1 : ndarray, (H, S1), optional
        As of `attention`.
    k_scales_SG, v_scales_SG : ndarray of float32, (S, G), optional
        Scales of keys and values that are int8.
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
        k, v = (
            stored[keys] if scales is None else stored[keys] * scales[keys, :, None]
            for stored, scales in ((k_SGK, k_scales_SG), (v_SGK, v_scales_SG))
        )
        start = np.array([length - count])
        k, v = (array[None].astype(q_NHK.dtype, copy=False) for array in (k, v))
        q = q_NHK[None, rows]
        y, _ = attention(q, k, v, bias_HS1, causal=causal, window=window, starts_B=start, scale=scale, cap=cap)
        y_NHK[rows] = y[0]
    return y_NHK


def store_rows(
    x_NGK: np.ndarray, rows_N: np.ndarray, stored_SGK: np.ndarray, scales_SG: np.ndarray | None = None
) -> None:
    """Write keys or values into a store, in the store's own dtype.

    Parameters
    ----------
    x_NGK : ndarray, (N, G, K), float32 or float64
        Keys or values.
    rows_N : ndarray of int, (N,)
        The row of each, all different.
    stored_SGK : ndarray, (S, G, K), float32, float16 or int8
        The store, whose rows are overwritten.
    scales_SG : ndarray of float32, (S, G), optional
        The scales of a store of int8; overwritten, too.

    Notes
    -----
    float16 takes what lies beyond its range as its largest number. int8: ``scale = max|x| / 127`` and
    ``code = round(x / scale)`` for each head of a row, as `quantize_activations` does it; a head with a number that is
    not finite has the scale NaN.

    References
    ----------
    T. Dettmers et al., 2022, arXiv 2208.07339, section 2.1 (the scale of a row).

    Examples
    --------
    >>> stored_SGK, scales_SG = np.zeros((2, 1, 2), np.int8), np.zeros((2, 1), np.float32)
    >>> store_rows(np.array([[[1.27, -0.5]]], np.float32), np.array([1]), stored_SGK, scales_SG)
    >>> stored_SGK[1], scales_SG[1]
    (array([[127, -50]], dtype=int8), array([0.01], dtype=float32))
    """
    if scales_SG is not None:
        codes, scales = quantize_activations(x_NGK.reshape(-1, x_NGK.shape[2]), group=0)
        stored_SGK[rows_N], scales_SG[rows_N] = codes.reshape(x_NGK.shape), scales.reshape(x_NGK.shape[:2])
    elif stored_SGK.dtype == np.float16:
        stored_SGK[rows_N] = x_NGK.clip(-MOST_HALF, MOST_HALF)
    else:
        stored_SGK[rows_N] = x_NGK
