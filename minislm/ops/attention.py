"""Scaled dot-product attention, forward and backward, and one new token against a cache."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def attention(
    q_BTHK: np.ndarray,
    k_BSGK: np.ndarray,
    v_BSGK: np.ndarray,
    *,
    causal: bool = False,
    key_mask_BS: np.ndarray | None = None,
    window: int | None = None,
    starts_B: np.ndarray | None = None,
    scale: float | None = None,
) -> tuple[np.ndarray, Any]:
    """Mix the values by how well their keys match each query."""
    options = {
        "causal": causal,
        "key_mask_BS": key_mask_BS,
        "window": window,
        "starts_B": starts_B,
        "scale": 1.0 / math.sqrt(q_BTHK.shape[-1]) if scale is None else float(scale),
    }
    q_BGH1TK, k_BGSK, v_BGSK = _by_group(q_BTHK, k_BSGK.shape[2]), k_BSGK.swapaxes(1, 2), v_BSGK.swapaxes(1, 2)
    p_BGH1TS = _scores(q_BGH1TK, k_BGSK, options)
    top = p_BGH1TS.max(axis=-1, keepdims=True, initial=-np.inf)
    top[top == -np.inf] = 0.0  # a fully masked row
    p_BGH1TS -= top
    np.exp(p_BGH1TS, out=p_BGH1TS)
    total = p_BGH1TS.sum(axis=-1, keepdims=True)
    y_BTHK = np.empty_like(q_BTHK, order="C")
    y_BGH1TK = _by_group(y_BTHK, k_BSGK.shape[2])
    np.matmul(p_BGH1TS, v_BGSK[:, :, None], out=y_BGH1TK)
    with np.errstate(divide="ignore"):
        logsumexp_BHT = (np.log(total) + top).reshape(q_BTHK.shape[0], q_BTHK.shape[2], q_BTHK.shape[1])
    total[total == 0.0] = 1.0
    y_BGH1TK /= total
    return y_BTHK, (q_BTHK, k_BSGK, v_BSGK, y_BTHK, logsumexp_BHT, options)


def attention_backward(dy_BTHK: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients of `attention`'s `q`, `k` and `v`."""
    q_BTHK, k_BSGK, v_BSGK, y_BTHK, logsumexp_BHT, options = saved
    n_groups = k_BSGK.shape[2]
    q_BGH1TK, k_BGSK, v_BGSK = _by_group(q_BTHK, n_groups), k_BSGK.swapaxes(1, 2), v_BSGK.swapaxes(1, 2)
    dy_BGH1TK, y_BGH1TK = _by_group(dy_BTHK, n_groups), _by_group(y_BTHK, n_groups)
    p_BGH1TS = _scores(q_BGH1TK, k_BGSK, options)
    p_BGH1TS -= np.where(logsumexp_BHT == -np.inf, 0.0, logsumexp_BHT).reshape(p_BGH1TS.shape[:-1])[..., None]
    np.exp(p_BGH1TS, out=p_BGH1TS)
    dv_BGSK = np.matmul(p_BGH1TS.swapaxes(-1, -2), dy_BGH1TK).sum(axis=2)
    ds_BGH1TS = np.matmul(dy_BGH1TK, v_BGSK.swapaxes(-1, -2)[:, :, None])
    ds_BGH1TS -= np.vecdot(dy_BGH1TK, y_BGH1TK)[..., None]
    ds_BGH1TS *= p_BGH1TS
    ds_BGH1TS *= options["scale"]
    dq_BTHK = np.empty_like(q_BTHK, order="C")
    np.matmul(ds_BGH1TS, k_BGSK[:, :, None], out=_by_group(dq_BTHK, n_groups))
    dk_BGSK = np.matmul(ds_BGH1TS.swapaxes(-1, -2), q_BGH1TK).sum(axis=2)
    return dq_BTHK, np.ascontiguousarray(dk_BGSK.swapaxes(1, 2)), np.ascontiguousarray(dv_BGSK.swapaxes(1, 2))


def attention_one(
    q_BHK: np.ndarray,
    k_CSGK: np.ndarray,
    v_CSGK: np.ndarray,
    slots_B: np.ndarray,
    lengths_B: np.ndarray,
    *,
    window: int | None = None,
    scale: float | None = None,
) -> np.ndarray:
    """Attend from one new token of each row to the cache."""
    y_BHK = np.empty_like(q_BHK, order="C")
    for b, (slot, length) in enumerate(zip(slots_B.tolist(), lengths_B.tolist(), strict=True)):
        first = 0 if window is None else max(0, length - window)
        y_1THK, _ = attention(
            q_BHK[b][None, None], k_CSGK[slot, first:length][None], v_CSGK[slot, first:length][None], scale=scale
        )
        y_BHK[b] = y_1THK[0, 0]
    return y_BHK


def _by_group(x_BTHK: np.ndarray, n_groups: int) -> np.ndarray:
    """View (B, T, H, K) as (B, G, H/G, T, K): query heads beside the key head that they share."""
    n_batch, n_positions, n_heads, width = x_BTHK.shape
    return x_BTHK.reshape(n_batch, n_positions, n_groups, n_heads // n_groups, width).transpose(0, 2, 3, 1, 4)


def _scores(q_BGH1TK: np.ndarray, k_BGSK: np.ndarray, options: dict[str, Any]) -> np.ndarray:
    """Return scaled products of queries and keys, -inf where a key is hidden from a query."""
    s_BGH1TS = np.matmul(q_BGH1TK * options["scale"], k_BGSK.swapaxes(-1, -2)[:, :, None])
    n_queries, n_keys = s_BGH1TS.shape[-2:]
    causal, window, starts_B, key_mask_BS = (options[n] for n in ("causal", "window", "starts_B", "key_mask_BS"))
    if causal or window is not None:
        starts = np.zeros(1, np.int64) if starts_B is None else starts_B
        ahead = np.arange(n_keys) - (starts[:, None, None] + np.arange(n_queries)[:, None])
        visible = np.ones_like(ahead, bool)
        if causal:
            visible &= ahead <= 0
        if window is not None:
            visible &= abs(ahead) < window
        s_BGH1TS += np.where(visible, 0.0, -np.inf).astype(s_BGH1TS.dtype)[:, None, None]
    if key_mask_BS is not None:
        s_BGH1TS += np.where(key_mask_BS, 0.0, -np.inf).astype(s_BGH1TS.dtype)[:, None, None, None]
    return s_BGH1TS
