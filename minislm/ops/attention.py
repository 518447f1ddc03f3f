"""Scaled dot-product attention.

Heads: H query heads share G heads of keys and values, H/G neighbours each. Inside, arrays are seen as (B, G, H1, T, K)
with H1 = H/G, so that one batched product serves every form from multi-head (H1 = 1) to multi-query (G = 1) without
repeating a key.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from minislm.ops.softmax import nonzero, row_max


class Options(NamedTuple):
    """The options of a call of `attention`, as it saves them for backward.

    Parameters
    ----------
    causal : bool
        Whether keys after the query are hidden.
    key_mask_BS : ndarray of bool, (B, S), optional
        Which keys there are.
    window : int, optional
        How near a visible key must be.
    starts_B : ndarray of int, (B,), optional
        Position of each row's first query.
    scale : float
        What products of queries and keys are multiplied by.
    cap : float, optional
        Bound of the scores.
    bias_HS1 : ndarray, (H, S1), optional
        What is added to the scores for each distance between key and query.
    """

    causal: bool
    key_mask_BS: np.ndarray | None
    window: int | None
    starts_B: np.ndarray | None
    scale: float
    cap: float | None
    bias_HS1: np.ndarray | None


Saved = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, Options]
MapSaved = tuple[np.ndarray, np.ndarray, np.ndarray, Options]


def attention(
    q_BTHK: np.ndarray,
    k_BSGK: np.ndarray,
    v_BSGK: np.ndarray,
    bias_HS1: np.ndarray | None = None,
    *,
    causal: bool = False,
    key_mask_BS: np.ndarray | None = None,
    window: int | None = None,
    starts_B: np.ndarray | None = None,
    scale: float | None = None,
    cap: float | None = None,
) -> tuple[np.ndarray, Saved]:
    """Mix the values by how well their keys match each query.

    Query t of row b stands at position ``starts_B[b] + t``, key s at position s. A query that sees no key gets zeros.

    Parameters
    ----------
    q_BTHK : ndarray, (B, T, H, K), float32 or float64
        Queries.
    k_BSGK : ndarray, (B, S, G, K)
        Keys; H is a multiple of G.
    v_BSGK : ndarray, (B, S, G, K)
        Values.
    bias_HS1 : ndarray, (H, S1), optional
        Added to the scores: column (S1 - 1) / 2 + d where a key stands d positions after the query, S1 being odd. The
        first and the last column serve all that are farther away, too. None: nothing is added.
    causal : bool
        Whether a query sees no key after its own position.
    key_mask_BS : ndarray of bool, (B, S), optional
        False for keys that are padding; None: all are real.
    window : int, optional
        A query sees only keys less than this many positions away, its own position included; None: any distance.
    starts_B : ndarray of int, (B,), optional
        Position of the first query of each row; None: 0.
    scale : float, optional
        What the products of queries and keys are multiplied by; None: 1 / sqrt(K).
    cap : float, optional
        Bound of the scores, before the bias: scores become ``cap tanh(score / cap)``. None: they stay.

    Returns
    -------
    y_BTHK : ndarray, (B, T, H, K)
        Mixed values.
    saved : tuple
        ``(q, k, v, y, logsumexp_BHT, Options)`` for `attention_backward`; `logsumexp_BHT` is the logarithm of the sum
        of each query's exponentials, -inf where it sees no key.

    Notes
    -----
    For each query head h and the key head g that it shares::

        c = scale q kᵀ             or cap tanh(scale q kᵀ / cap)
        s = c + bias + mask        mask: 0 where a key is visible, -inf where it is not
        p = softmax(s)
        y = p v

    4 B H T S K operations in two batched products, and B H T S numbers for the probabilities while it runs. They are
    not saved: backward recomputes them from `logsumexp` by one product, and memory grows with S no more. The division
    by the sum of exponentials is done on y, which is smaller than p. Sums in the dtype of `q`.

    References
    ----------
    Vaswani et al. 2017, arXiv:1706.03762, equation 1. Grouped heads: Ainslie et al. 2023, arXiv:2305.13245, section
    2.2. Windows: Beltagy, Peters and Cohan 2020, arXiv:2004.05150, section 3.1. Caps: Gemma Team 2024,
    arXiv:2408.00118, section 2. Biases by distance: Raffel et al. 2020, arXiv:1910.10683, section 2.1.

    Examples
    --------
    >>> q_BTHK = np.array([0.0, 100.0]).reshape(1, 2, 1, 1)
    >>> k_BSGK = np.array([1.0, 5.0]).reshape(1, 2, 1, 1)
    >>> y_BTHK, saved = attention(q_BTHK, k_BSGK, k_BSGK)
    >>> y_BTHK.ravel()  # the first query likes both keys alike, the second the larger one
    array([3., 5.])
    >>> attention(q_BTHK, k_BSGK, k_BSGK, causal=True)[0].ravel()
    array([1., 5.])
    """
    n_batch, n_queries, n_heads, width = q_BTHK.shape
    n_groups = k_BSGK.shape[2]
    scale = 1.0 / math.sqrt(width) if scale is None else float(scale)
    options = Options(causal, key_mask_BS, window, starts_B, scale, cap, bias_HS1)
    q_BGH1TK, k_BGSK, v_BGSK = _by_group(q_BTHK, n_groups), k_BSGK.swapaxes(1, 2), v_BSGK.swapaxes(1, 2)
    p_BGH1TS = _scores(q_BGH1TK, k_BGSK, options)
    top = row_max(p_BGH1TS)
    p_BGH1TS -= top
    np.exp(p_BGH1TS, out=p_BGH1TS)
    total = p_BGH1TS.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):  # the logarithm of no key's exponential
        logsumexp_BHT = (np.log(total) + top).reshape(n_batch, n_heads, n_queries)
    y_BTHK = np.empty(q_BTHK.shape, q_BTHK.dtype)
    y_BGH1TK = _by_group(y_BTHK, n_groups)
    np.matmul(p_BGH1TS, v_BGSK[:, :, None], out=y_BGH1TK)
    y_BGH1TK /= nonzero(total)
    return y_BTHK, (q_BTHK, k_BSGK, v_BSGK, y_BTHK, logsumexp_BHT, options)


def attention_backward(
    dy_BTHK: np.ndarray, saved: Saved
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Return the gradients of `attention`'s queries, keys, values and bias.

    Parameters
    ----------
    dy_BTHK : ndarray, (B, T, H, K)
        Gradient of `attention`'s result.
    saved : tuple
        What `attention` saved.

    Returns
    -------
    dq_BTHK : ndarray, (B, T, H, K)
        Gradient of the queries.
    dk_BSGK : ndarray, (B, S, G, K)
        Gradient of the keys, summed over the query heads that share them.
    dv_BSGK : ndarray, (B, S, G, K)
        Gradient of the values, likewise.
    dbias_HS1 : ndarray, (H, S1), or None
        Gradient of the bias, each column summed over the pairs that it serves; None where there was no bias.

    Notes
    -----
    ::

        p = exp(s - logsumexp)
        dv = pᵀ dy      dp = dy vᵀ      ds = p (dp - Σₛ p dp)
        dc = ds         or ds (1 - tanh(scale q kᵀ / cap)²) with a cap
        dq = scale dc k      dk = scale dcᵀ q

    The sum over the keys needs no pass over p: since y = p v, it is the inner product of dy and y. 10 B H T S K
    operations in five batched products, one of them forward's again; with a cap that one comes twice.

    References
    ----------
    Dao 2023, arXiv:2307.08691, algorithm 2 (without its tiles).

    Examples
    --------
    >>> one = np.ones((1, 1, 1, 1))
    >>> _, saved = attention(one, 2 * one, 3 * one)  # a single key: always chosen, whatever the query
    >>> [float(gradient.item()) for gradient in attention_backward(one, saved)[:3]]
    [0.0, 0.0, 1.0]
    """
    q_BTHK, k_BSGK, v_BSGK, y_BTHK, _, options = saved
    n_groups = k_BSGK.shape[2]
    v_BGSK = v_BSGK.swapaxes(1, 2)
    y_BGH1TK, dy_BGH1TK = _by_group(y_BTHK, n_groups), _by_group(dy_BTHK, n_groups)
    p_BGH1TS = attention_probabilities(saved).reshape(dy_BGH1TK.shape[:-1] + v_BGSK.shape[-2:-1])  # recomputed
    dv_BGSK = np.matmul(p_BGH1TS.swapaxes(-1, -2), dy_BGH1TK).sum(axis=2)  # undo y = p v
    ds_BGH1TS = np.matmul(dy_BGH1TK, v_BGSK.swapaxes(-1, -2)[:, :, None])  # undo y = p v, this is dp
    ds_BGH1TS -= np.vecdot(dy_BGH1TK, y_BGH1TK)[..., None]  # undo p /= total
    ds_BGH1TS *= p_BGH1TS  # undo p = exp(s - top)
    dq_BTHK, dk_BSGK, dbias_HS1 = _scores_backward(ds_BGH1TS, q_BTHK, k_BSGK, options)
    return dq_BTHK, dk_BSGK, np.ascontiguousarray(dv_BGSK.swapaxes(1, 2)), dbias_HS1


def attention_map(
    q_BTHK: np.ndarray,
    k_BSGK: np.ndarray,
    bias_HS1: np.ndarray | None = None,
    *,
    causal: bool = False,
    key_mask_BS: np.ndarray | None = None,
    window: int | None = None,
    starts_B: np.ndarray | None = None,
    scale: float | None = None,
    cap: float | None = None,
) -> tuple[np.ndarray, MapSaved]:
    """Return the probabilities with which `attention` mixes the values, for a loss that judges them.

    Parameters
    ----------
    q_BTHK : ndarray, (B, T, H, K), float32 or float64
        Queries.
    k_BSGK : ndarray, (B, S, G, K)
        Keys; H is a multiple of G.
    bias_HS1 : ndarray, (H, S1), optional
        As of `attention`.
    causal, key_mask_BS, window, starts_B, scale, cap : optional
        As of `attention`.

    Returns
    -------
    p_BHTS : ndarray, (B, H, T, S)
        How much of each value each query takes: rows sum to 1, or to 0 where every key is hidden.
    saved : tuple
        ``(q, k, p, Options)`` for `attention_map_backward`.

    Notes
    -----
    ::

        c = scale q kᵀ             or cap tanh(scale q kᵀ / cap)
        s = c + bias + mask        mask: 0 where a key is visible, -inf where it is not
        p = softmax(s)

    2 B H T S K operations and B H T S numbers, which are saved: whoever asks for the map keeps it anyway.

    References
    ----------
    Jiao et al. 2019, arXiv:1909.10351, equation 7 (a student's attention map compared with its teacher's); Wang et al.
    2020, arXiv:2002.10957, equation 6.

    Examples
    --------
    >>> q_BTHK = np.array([0.0, 100.0]).reshape(1, 2, 1, 1)
    >>> attention_map(q_BTHK, q_BTHK)[0][0, 0]  # the first query likes both keys alike
    array([[0.5, 0.5],
           [0. , 1. ]])
    """
    scale = 1.0 / math.sqrt(q_BTHK.shape[3]) if scale is None else float(scale)
    options = Options(causal, key_mask_BS, window, starts_B, scale, cap, bias_HS1)
    p_BGH1TS = _scores(_by_group(q_BTHK, k_BSGK.shape[2]), k_BSGK.swapaxes(1, 2), options)
    p_BGH1TS -= row_max(p_BGH1TS)
    np.exp(p_BGH1TS, out=p_BGH1TS)
    p_BGH1TS /= nonzero(p_BGH1TS.sum(axis=-1, keepdims=True))
    n_batch, n_queries, n_heads, _ = q_BTHK.shape
    p_BHTS = p_BGH1TS.reshape(n_batch, n_heads, n_queries, k_BSGK.shape[1])
    return p_BHTS, (q_BTHK, k_BSGK, p_BHTS, options)


def attention_map_backward(dp_BHTS: np.ndarray, saved: MapSaved) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return the gradients of `attention_map`'s queries, keys and bias.

    Parameters
    ----------
    dp_BHTS : ndarray, (B, H, T, S)
        Gradient of the probabilities.
    saved : tuple
        What `attention_map` saved.

    Returns
    -------
    dq_BTHK : ndarray, (B, T, H, K)
        Gradient of the queries.
    dk_BSGK : ndarray, (B, S, G, K)
        Gradient of the keys, summed over the query heads that share them.
    dbias_HS1 : ndarray, (H, S1), or None
        Gradient of the bias; None where there was none.

    Notes
    -----
    ::

        ds = p (dp - Σₛ p dp)
        dc = ds         or ds (1 - tanh(scale q kᵀ / cap)²) with a cap
        dq = scale dc k      dk = scale dcᵀ q

    4 B H T S K operations in two batched products; with a cap there are three.

    References
    ----------
    As `attention_map`.

    Examples
    --------
    >>> one = np.ones((1, 1, 1, 1))
    >>> p_BHTS, saved = attention_map(one, one)  # a single key: always chosen, whatever the query
    >>> [float(gradient.item()) for gradient in attention_map_backward(one, saved)[:2]]
    [0.0, 0.0]
    """
    q_BTHK, k_BSGK, p_BHTS, options = saved
    ds_BHTS = dp_BHTS - np.vecdot(p_BHTS, dp_BHTS)[..., None]  # undo p /= total
    ds_BHTS *= p_BHTS  # undo p = exp(s - top)
    n_batch, n_heads, n_queries, n_keys = p_BHTS.shape
    n_groups = k_BSGK.shape[2]
    ds_BGH1TS = ds_BHTS.reshape(n_batch, n_groups, n_heads // n_groups, n_queries, n_keys)
    return _scores_backward(ds_BGH1TS, q_BTHK, k_BSGK, options)


def attention_probabilities(saved: Saved) -> np.ndarray:
    """Recompute the probabilities, which cost a product again instead of B H T S numbers kept.

    Parameters
    ----------
    saved : tuple
        What `attention` saved.

    Returns
    -------
    ndarray, (B, H, T, S)
        How much of each value each query takes: rows sum to 1, or to 0 where every key is hidden.

    Examples
    --------
    >>> _, saved = attention(np.zeros((1, 1, 1, 1)), np.zeros((1, 2, 1, 1)), np.zeros((1, 2, 1, 1)))
    >>> attention_probabilities(saved).ravel()
    array([0.5, 0.5])
    """
    q_BTHK, k_BSGK, _, _, logsumexp_BHT, options = saved
    p_BGH1TS = _scores(_by_group(q_BTHK, k_BSGK.shape[2]), k_BSGK.swapaxes(1, 2), options)
    p_BHTS: np.ndarray = p_BGH1TS.reshape(*logsumexp_BHT.shape, k_BSGK.shape[1])
    p_BHTS -= np.maximum(logsumexp_BHT, np.finfo(q_BTHK.dtype).min)[..., None]
    np.exp(p_BHTS, out=p_BHTS)
    return p_BHTS


def _by_group(x_BTHK: np.ndarray, n_groups: int) -> np.ndarray:
    """View (B, T, H, K) as (B, G, H1, T, K): query heads beside the key head that they share."""
    n_batch, n_queries, n_heads, width = x_BTHK.shape
    x_BTGH1K = x_BTHK.reshape(n_batch, n_queries, n_groups, n_heads // n_groups, width)
    return x_BTGH1K.transpose(0, 2, 3, 1, 4)


def scores_of_products(s_BGH1TS: np.ndarray, options: Options) -> np.ndarray:
    """Make scores of the scaled products of queries and keys.

    Parameters
    ----------
    s_BGH1TS : ndarray, (B, G, H1, T, S)
        Products, scaled; they may be overwritten.
    options : Options
        Their cap, bias and masks.

    Returns
    -------
    ndarray, (B, G, H1, T, S)
        Scores, -inf where a key is hidden from a query.
    """
    if options.cap is not None:
        s_BGH1TS = np.tanh(s_BGH1TS / options.cap) * options.cap
    if options.bias_HS1 is not None:
        s_BGH1TS += _biases(options, s_BGH1TS.shape)
    if options.causal or options.window is not None:
        ahead = _ahead(options, *s_BGH1TS.shape[-2:])
        hidden = ahead > 0 if options.causal else np.zeros(ahead.shape, bool)
        if options.window is not None:
            hidden |= np.abs(ahead) >= options.window
        s_BGH1TS += _minus_infinity(hidden, s_BGH1TS.dtype)[:, None, None]
    if options.key_mask_BS is not None:
        s_BGH1TS += _minus_infinity(~options.key_mask_BS, s_BGH1TS.dtype)[:, None, None, None]
    return s_BGH1TS


def _scores(q_BGH1TK: np.ndarray, k_BGSK: np.ndarray, options: Options) -> np.ndarray:
    """Return the scores of keys for queries, -inf where a key is hidden from a query."""
    return scores_of_products(_products(q_BGH1TK, k_BGSK, options.scale), options)


def _scores_backward(
    ds_BGH1TS: np.ndarray, q_BTHK: np.ndarray, k_BSGK: np.ndarray, options: Options
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Undo `_scores`: return the gradients of queries, keys and bias."""
    n_groups = k_BSGK.shape[2]
    q_BGH1TK, k_BGSK = _by_group(q_BTHK, n_groups), k_BSGK.swapaxes(1, 2)
    dbias_HS1 = _biases_backward(ds_BGH1TS, options)  # undo s += biases
    if options.cap is not None:  # undo s = cap tanh(s / cap), the tanh recomputed as it is as large as s
        ds_BGH1TS = ds_BGH1TS * (1 - np.tanh(_products(q_BGH1TK, k_BGSK, options.scale) / options.cap) ** 2)
    dq_BTHK = np.empty(q_BTHK.shape, q_BTHK.dtype)
    np.matmul(ds_BGH1TS, k_BGSK[:, :, None], out=_by_group(dq_BTHK, n_groups))  # undo s = q kᵀ
    dk_BGSK = np.matmul(ds_BGH1TS.swapaxes(-1, -2), q_BGH1TK).sum(axis=2)  # undo s = q kᵀ
    dq_BTHK *= options.scale  # undo s *= scale
    dk_BGSK *= options.scale  # undo s *= scale
    return dq_BTHK, np.ascontiguousarray(dk_BGSK.swapaxes(1, 2)), dbias_HS1


def _products(q_BGH1TK: np.ndarray, k_BGSK: np.ndarray, scale: float) -> np.ndarray:
    """Return the scaled products of queries and keys."""
    s_BGH1TS: np.ndarray = np.matmul(q_BGH1TK * scale, k_BGSK.swapaxes(-1, -2)[:, :, None])
    return s_BGH1TS


def _ahead(options: Options, n_queries: int, n_keys: int) -> np.ndarray:
    """Tell how far each key is after each query: rows (or 1) x queries x keys."""
    starts = np.zeros(1, np.int64) if options.starts_B is None else options.starts_B
    ahead: np.ndarray = np.arange(n_keys) - (starts[:, None, None] + np.arange(n_queries)[:, None])
    return ahead


def _columns(options: Options, n_queries: int, n_keys: int, width: int) -> np.ndarray:
    """Tell which column of the bias serves each key and query: rows (or 1) x queries x keys."""
    reach = width // 2
    columns: np.ndarray = np.clip(_ahead(options, n_queries, n_keys), -reach, reach) + reach
    return columns


def _biases(options: Options, shape: tuple[int, ...]) -> np.ndarray:
    """Return what the bias adds to scores of a shape (B, G, H1, T, S): rows (or 1) x G x H1 x T x S."""
    assert options.bias_HS1 is not None
    _, n_groups, n_shared, n_queries, n_keys = shape
    columns = _columns(options, n_queries, n_keys, options.bias_HS1.shape[1])
    added: np.ndarray = options.bias_HS1[:, columns].swapaxes(0, 1)
    return added.reshape(len(columns), n_groups, n_shared, n_queries, n_keys)


def _biases_backward(ds_BGH1TS: np.ndarray, options: Options) -> np.ndarray | None:
    """Undo the addition of `_biases`: sum what each column of the bias was added to."""
    if options.bias_HS1 is None:
        return None
    n_batch, n_groups, n_shared, n_queries, n_keys = ds_BGH1TS.shape
    ds_HBTS = ds_BGH1TS.reshape(n_batch, n_groups * n_shared, n_queries, n_keys).swapaxes(0, 1)
    width = options.bias_HS1.shape[1]
    places = np.broadcast_to(_columns(options, n_queries, n_keys, width), ds_HBTS.shape[1:]).reshape(-1)
    sums = [np.bincount(places, ds_BTS.reshape(-1), width) for ds_BTS in ds_HBTS]  # bincount adds in float64
    return np.array(sums, ds_BGH1TS.dtype)


def _minus_infinity(hidden: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return what to add to scores: -inf where hidden, else 0."""
    bias = np.zeros(hidden.shape, dtype)
    bias[hidden] = -np.inf
    return bias
