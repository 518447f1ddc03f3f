"""Attention of packed sequences, one call for a whole pass; and how a cache stores the rows of their keys and values.

Rows are stored as float32, as float16, or as signed bytes with one scale for each head of a row. Bytes are attended to
in whole numbers: queries, and the weights of the values, become bytes too.
"""

from __future__ import annotations

import math

import numpy as np

from minislm.ops.attention import Options, attention, scores_of_products
from minislm.ops.quantized import quantize_activations
from minislm.ops.softmax import nonzero

STORED = ("float32", "float16", "int8")
"""Dtypes that rows of keys and values may be stored in."""

MOST_HALF = 65504.0  # what float16 can hold
TOGETHER = 128  # keys whose values share the scale of their weights
LEAST_SCALE = 2.0**-100  # that the weight of a value is worth: one of zeros has none
LOWEST = -1e30  # the largest score where no key is seen: finite, so that it may be subtracted


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
    k_SGK, v_SGK : ndarray, (S, G, K), float32 or float16
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
        k, v = (array[None, keys].astype(q_NHK.dtype, copy=False) for array in (k_SGK, v_SGK))
        q, start = q_NHK[None, rows], np.array([length - count])
        y, _ = attention(q, k, v, bias_HS1, causal=causal, window=window, starts_B=start, scale=scale, cap=cap)
        y_NHK[rows] = y[0]
    return y_NHK


def attention_packed_int8(
    q_NHK: np.ndarray,
    k_SGK: np.ndarray,
    v_SGK: np.ndarray,
    k_scales_SG: np.ndarray,
    v_scales_SG: np.ndarray,
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
    """Attend as `attention_packed` does, in whole numbers, to keys and values that are bytes.

    Parameters
    ----------
    q_NHK : ndarray, (N, H, K), float32 or float64
        Queries, sequence after sequence.
    k_SGK, v_SGK : ndarray, (S, G, K), int8
        Rows of keys and values, as `store_rows` stores them; H is a multiple of G.
    k_scales_SG, v_scales_SG : ndarray of float32, (S, G)
        Their scales.
    counts_B, firsts_B, lengths_B : ndarray of int, (B,)
        As of `attention_packed`.
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
    For each query head, with the codes and scales of `quantize_activations`, and the keys of a sequence in tiles of
    `TOGETHER`, tile j after tile j::

        qcode, qscale = round(scale q)
        s = (qcode kcode) (kscale qscale)             and then as of `attention`: cap, bias, mask
        t = s + log max(vscale, 2^-100)               so that a weight is worth its value's scale
        w = exp(t - max_j t)                          the largest of a tile is 1
        y = sum_j exp(max_j t - max t) sum_tile round(255 w) vcode
            / sum_j exp(max_j t - max t) sum_tile 255 w / max(vscale, 2^-100)

    Both products are of whole numbers and exact: bytes times bytes, whose sums fit 32 bits. Everything else is done in
    the dtype of `q`. Over 1,024 keys and values of normal numbers the bytes of these put the result wrong by 0.9 % of
    its root mean square, those of the queries by 0.6 % and those of the weights by 0.7 %: together 1.3 %. 4 H K
    operations on bytes for each pair of a query and a key that it sees, and one exponential.

    References
    ----------
    Zhang et al. 2024, arXiv:2410.02367, section 4 (queries, keys and weights as bytes, here with a scale for each head
    of a position); Kim et al. 2021, arXiv:2101.01321, section 3.1 (attention in whole numbers); Milakov and Gimelshein
    2018, arXiv:1805.02867, algorithm 3 (tiles).

    Examples
    --------
    >>> k_SGK, scales_SG = np.array([70, 10, 50, 90], np.int8).reshape(4, 1, 1), np.full((4, 1), np.float32(0.1))
    >>> table = np.array([1, 1]), np.array([2, 0]), np.array([2, 1])
    >>> attention_packed_int8(np.zeros((2, 1, 1)), k_SGK, k_SGK, scales_SG, scales_SG, *table).ravel().round(6)
    array([7., 7.])
    """
    width, y_NHK, end = q_NHK.shape[2], np.empty(q_NHK.shape, q_NHK.dtype), 0
    scale = 1.0 / math.sqrt(width) if scale is None else float(scale)
    codes, scales = quantize_activations((q_NHK * q_NHK.dtype.type(scale)).reshape(-1, width), group=0)
    q_codes_NHK, q_scales_NH = codes.reshape(q_NHK.shape), scales.reshape(q_NHK.shape[:2])
    for count, first, length in zip(counts_B.tolist(), firsts_B.tolist(), lengths_B.tolist(), strict=True):
        rows, keys, end = slice(end, end + count), slice(first, first + length), end + count
        options = Options(causal, None, window, np.array([length - count]), scale, cap, bias_HS1)
        stored = k_SGK[keys], k_scales_SG[keys], v_SGK[keys], v_scales_SG[keys]
        y_NHK[rows] = _attend_to_bytes(q_codes_NHK[rows], q_scales_NH[rows], *stored, options, q_NHK.dtype)
    return y_NHK


def _attend_to_bytes(
    q_THK: np.ndarray,
    q_scales_TH: np.ndarray,
    k_SGK: np.ndarray,
    k_scales_SG: np.ndarray,
    v_SGK: np.ndarray,
    v_scales_SG: np.ndarray,
    options: Options,
    dtype: np.dtype,
) -> np.ndarray:
    """Attend from the rounded queries of one sequence, (T, H, K) in `dtype`."""
    (n_keys, n_groups, width), (n_queries, n_heads, _) = k_SGK.shape, q_THK.shape
    n_tiles = max(1, -(-n_keys // TOGETHER))
    rest, grouped = n_tiles * TOGETHER - n_keys, (n_queries, n_groups, n_heads // n_groups)
    q_GH1TK = q_THK.reshape(*grouped, width).transpose(1, 2, 0, 3)
    s_GH1TS = _exact_products(q_GH1TK, k_SGK.transpose(1, 2, 0)[:, None]).astype(dtype, copy=False)
    s_GH1TS *= q_scales_TH.reshape(*grouped, 1).transpose(1, 2, 0, 3) * k_scales_SG.T[:, None, None]
    s_GH1TS = scores_of_products(s_GH1TS[None], options)[0]
    least_GS = v_scales_SG.T.clip(LEAST_SCALE, None).astype(dtype)
    padded = np.full((*s_GH1TS.shape[:3], n_tiles * TOGETHER), -np.inf, dtype)
    seen_GH1TS = s_GH1TS != -np.inf  # what is hidden stays so, whatever its value is
    np.add(s_GH1TS, np.log(least_GS)[:, None, None], out=padded[..., :n_keys], where=seen_GH1TS)
    w_GH1TJZ = padded.reshape(*padded.shape[:3], n_tiles, TOGETHER)
    top = w_GH1TJZ.max(axis=-1, keepdims=True).clip(LOWEST, None)
    share = np.exp(top - top.max(axis=3, keepdims=True))
    w_GH1TJZ -= top
    np.exp(w_GH1TJZ, out=w_GH1TJZ)
    w_GH1TJZ *= 255
    worth_GS = 1 / np.where(least_GS > 0, least_GS, 1)  # where it is not a number, the weight tells
    worth = np.pad(worth_GS, [(0, 0), (0, rest)]).reshape(n_groups, 1, 1, n_tiles, TOGETHER)
    total = np.vecdot(w_GH1TJZ, worth)[..., None]
    v_JZGK = np.pad(v_SGK, [(0, rest), (0, 0), (0, 0)]).reshape(n_tiles, TOGETHER, n_groups, width)
    y_GH1JTK = _exact_products(np.rint(w_GH1TJZ).swapaxes(2, 3), v_JZGK.transpose(2, 0, 1, 3)[:, None])
    y_GH1TK = (y_GH1JTK.swapaxes(2, 3) * share).sum(axis=3) / nonzero((total * share).sum(axis=3))
    y_THK: np.ndarray = y_GH1TK.transpose(2, 0, 1, 3).reshape(q_THK.shape)
    return y_THK


def _exact_products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Multiply matrices of whole numbers below 256: BLAS has floats alone, and these hold the sums."""
    dtype = np.float32 if a.shape[-1] <= 512 else np.float64
    product: np.ndarray = np.matmul(a.astype(dtype, copy=False), b.astype(dtype, copy=False))
    return product


def store_rows(
    x_NGK: np.ndarray, rows_N: np.ndarray | None, stored_SGK: np.ndarray, scales_SG: np.ndarray | None = None
) -> None:
    """Write keys or values into a store, in the store's own dtype.

    Parameters
    ----------
    x_NGK : ndarray, (N, G, K), float32 or float64
        Keys or values.
    rows_N : ndarray of int, (N,), optional
        The row of each, all different. None: the first N, in order.
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
    rows = slice(len(x_NGK)) if rows_N is None else rows_N
    if scales_SG is not None:
        codes, scales = quantize_activations(x_NGK.reshape(-1, x_NGK.shape[2]), group=0)
        stored_SGK[rows], scales_SG[rows] = codes.reshape(x_NGK.shape), scales.reshape(x_NGK.shape[:2])
    elif stored_SGK.dtype == np.float16:
        stored_SGK[rows] = x_NGK.clip(-MOST_HALF, MOST_HALF)
    else:
        stored_SGK[rows] = x_NGK
