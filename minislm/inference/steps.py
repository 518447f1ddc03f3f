"""The steps of a Program; those that know tokens and sequences: lookup, rotation, attention, choice and pooling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from minislm.dispatch import ops
from minislm.inference.passes import CachedPass, Pass, SourcePass
from minislm.layers.rotary import Turn


class Step(NamedTuple):
    """One line of a program: read some buffers, write one.

    Parameters
    ----------
    op : str
        An op, called as ``op(*inputs, *constants, **options)``, or one of `SPECIAL`.
    inputs : tuple of int
        The buffers that it reads.
    constants : tuple
        Arrays of the model; for ``rows`` the Weight that is looked up.
    options : mapping
        Keyword arguments.
    result : int
        The buffer that it writes; no other step writes it.
    width : int
        Numbers in each row of the result.
    chosen : bool
        Whether the result has a row for each output asked for, or for each sequence, instead of one for each token.
    """

    op: str
    inputs: tuple[int, ...]
    constants: tuple[Any, ...]
    options: Mapping[str, Any]
    result: int
    width: int
    chosen: bool


def _rows(current: Pass, out: np.ndarray, ids_N: np.ndarray, weight: Any) -> None:
    """Look up a row of the Weight for each id."""
    np.copyto(out, weight.rows(ids_N))


def _rotate(current: Pass, out: np.ndarray, x: np.ndarray, positions_N: np.ndarray, *, d_head: int, turn: Turn) -> None:
    """Rotate each head by the token's position."""
    x_NHK, y_NHK = _heads(d_head, x, out)
    ops.rotary(x_NHK, positions_N, turn.frequencies, interleaved=turn.interleaved, factor=turn.factor, out=y_NHK)


def _head_norm(current: Pass, out: np.ndarray, x: np.ndarray, *constants: np.ndarray, eps: float, norm: str) -> None:
    """Normalize each piece of a row that is as wide as the gain: a head, or all of them."""
    width = constants[0].size
    getattr(ops, norm)(x.reshape(-1, width), *constants, eps=eps, out=out.reshape(-1, width))


def _attend(
    current: CachedPass,
    out: np.ndarray,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    bias_HS1: np.ndarray | None = None,
    *,
    layer: int,
    d_head: int,
    **options: Any,
) -> None:
    """Append the keys and values; then each token meets those of its sequence up to itself."""
    q_NHK, k_NGK, v_NGK, y_NHK = _heads(d_head, q, k, v, out)
    cache = current.cache
    cache.write(layer, current.slots_N, current.positions_N, k_NGK, v_NGK)
    stored = cache.k_layers[layer], cache.v_layers[layer]
    lengths_B = current.starts_B + current.counts_B
    _meet(current, q_NHK, *stored, current.slots_B, lengths_B, bias_HS1, y_NHK, causal=True, **options)


def _attend_source(
    current: CachedPass,
    out: np.ndarray,
    q: np.ndarray,
    *,
    layer: int,
    n_kv_heads: int,
    d_head: int,
    scale: float | None,
) -> None:
    """Let each token meet all of its sequence's source."""
    q_NHK, y_NHK = _heads(d_head, q, out)
    sources = current.cache.sources
    rows_B, lengths_B = sources.read(current.slots_B)
    stored = sources.k_layers[layer], sources.v_layers[layer]
    _meet(current, q_NHK, *stored, rows_B, lengths_B, None, y_NHK, causal=False, scale=scale)


def _meet(
    current: CachedPass,
    q_NHK: np.ndarray,
    k_CSGK: np.ndarray,
    v_CSGK: np.ndarray,
    rows_B: np.ndarray,
    lengths_B: np.ndarray,
    bias_HS1: np.ndarray | None,
    y_NHK: np.ndarray,
    *,
    causal: bool,
    **options: Any,
) -> None:
    """Attend to what a cache holds: one op for all sequences with one new token, one for each of the others.

    Which op serves a sequence depends on its own count alone, never on who else is in the pass.
    """
    ends_B, alone_B = np.cumsum(current.counts_B), current.counts_B == 1
    if alone_B.all():
        ops.attention_one(q_NHK, k_CSGK, v_CSGK, rows_B, lengths_B, bias_HS1, **options, out=y_NHK)
        return
    if alone_B.any():
        single, rows, lengths = ends_B[alone_B] - 1, rows_B[alone_B], lengths_B[alone_B]
        y_NHK[single] = ops.attention_one(q_NHK[single], k_CSGK, v_CSGK, rows, lengths, bias_HS1, **options)
    for b in np.flatnonzero(~alone_B):
        row, length, count = rows_B[b], lengths_B[b], current.counts_B[b]
        new = slice(ends_B[b] - count, ends_B[b])
        ops.attention(
            q_NHK[None, new],
            k_CSGK[row : row + 1, :length],
            v_CSGK[row : row + 1, :length],
            bias_HS1,
            causal=causal,
            starts_B=current.starts_B[b : b + 1],
            **options,
            out=y_NHK[None, new],
        )


def _attend_all(
    current: Pass,
    out: np.ndarray,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    bias_HS1: np.ndarray | None = None,
    *,
    d_head: int,
    **options: Any,
) -> None:
    """Let every token of a sequence meet all of them; one op for neighbouring sequences of one length."""
    arrays = _heads(d_head, q, k, v, out)
    for rows, count in current.runs():
        *qkv, y = (array[rows].reshape(-1, count, *array.shape[1:]) for array in arrays)
        ops.attention(*qkv, bias_HS1, **options, out=y)


def _keep_source(current: SourcePass, out: np.ndarray, *kv: np.ndarray, layer: int, d_head: int) -> None:
    """Put keys and values of sources into the cache."""
    current.cache.sources.write(layer, current.rows_N, current.positions_N, *_heads(d_head, *kv))


def _outputs(current: CachedPass, out: np.ndarray, x: np.ndarray) -> None:
    """Keep the rows whose results are wanted."""
    np.copyto(out, x[current.chosen_O])


def _neighbours(current: Pass, out: np.ndarray, x: np.ndarray) -> None:
    """Put the next row, the own and the one before side by side; zeros where a sequence ends or begins."""
    width = x.shape[1]
    ends_B = np.cumsum(current.counts_B)
    out[:-1, :width], out[:, width : 2 * width], out[1:, 2 * width :] = x[1:], x, x[:-1]
    out[ends_B - 1, :width] = 0
    out[ends_B - current.counts_B, 2 * width :] = 0


def _columns(current: Pass, out: np.ndarray, x: np.ndarray, *, start: int) -> None:
    """Keep a part of each row."""
    np.copyto(out, x[:, start : start + out.shape[1]])


def _pool_first(current: Pass, out: np.ndarray, x: np.ndarray) -> None:
    """Keep each sequence's first row."""
    np.copyto(out, x[np.cumsum(current.counts_B) - current.counts_B])


def _pool_mean(current: Pass, out: np.ndarray, x: np.ndarray) -> None:
    """Take the mean of each sequence's rows."""
    for b, (end, count) in enumerate(zip(np.cumsum(current.counts_B), current.counts_B, strict=True)):
        x[end - count : end].mean(axis=0, out=out[b])


def _heads(d_head: int, *arrays: np.ndarray) -> list[np.ndarray]:
    """View rows as heads, (N, H, K)."""
    return [array.reshape(len(array), -1, d_head) for array in arrays]


SPECIAL: dict[str, Callable[..., None]] = {
    "rows": _rows,
    "rotate": _rotate,
    "head_norm": _head_norm,
    "attend": _attend,
    "attend_source": _attend_source,
    "attend_all": _attend_all,
    "keep_source": _keep_source,
    "outputs": _outputs,
    "neighbours": _neighbours,
    "columns": _columns,
    "pool_first": _pool_first,
    "pool_mean": _pool_mean,
}
CHOOSING = ("outputs", "pool_first", "pool_mean")  # their results have fewer rows than there are tokens
