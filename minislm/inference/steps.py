"""The steps of a Program; those that know tokens and sequences: lookup, rotation, attention, choice and pooling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from minislm.dispatch import ops
from minislm.inference.passes import CachedPass, Pass, SourcePass
from minislm.inference.stored import Stored
from minislm.layers.rotary import Turn

FLOAT32 = np.dtype(np.float32)


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
    dtype : dtype
        Of the result: float32, or int8 for rows that were rounded.
    """

    op: str
    inputs: tuple[int, ...]
    constants: tuple[Any, ...]
    options: Mapping[str, Any]
    result: int
    width: int
    chosen: bool
    dtype: np.dtype = FLOAT32

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of the result."""
        return self.width * self.dtype.itemsize


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
    cache.write(layer, current.rows_N, k_NGK, v_NGK)
    places = current.counts_B, current.firsts_B, current.lengths_B
    _attend_to(cache.k_layers[layer], cache.v_layers[layer], q_NHK, places, bias_HS1, y_NHK, causal=True, **options)


def _attend_source(
    current: CachedPass, out: np.ndarray, q: np.ndarray, *, layer: int, n_kv_heads: int, d_head: int, **options: Any
) -> None:
    """Let each token meet all of its sequence's source."""
    q_NHK, y_NHK = _heads(d_head, q, out)
    sources = current.cache.sources
    places = current.counts_B, current.source_firsts_B, current.source_lengths_B
    _attend_to(sources.k_layers[layer], sources.v_layers[layer], q_NHK, places, None, y_NHK, **options)


def _attend_to(
    k: Stored,
    v: Stored,
    q_NHK: np.ndarray,
    places: tuple[np.ndarray, ...],
    bias_HS1: np.ndarray | None,
    y_NHK: np.ndarray,
    **options: Any,
) -> None:
    """Let packed queries meet what a cache has stored, by the op of its dtype."""
    (k_SGK, k_scales_SG), (v_SGK, v_scales_SG) = k.end_to_end(), v.end_to_end()
    if k_scales_SG is None:
        ops.attention_packed(q_NHK, k_SGK, v_SGK, *places, bias_HS1, **options, out=y_NHK)
    else:
        stored = k_SGK, v_SGK, k_scales_SG, v_scales_SG
        ops.attention_packed_int8(q_NHK, *stored, *places, bias_HS1, **options, out=y_NHK)


def _attend_all(
    current: Pass,
    out: np.ndarray,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    bias_HS1: np.ndarray | None = None,
    *,
    stored: str,
    d_head: int,
    **options: Any,
) -> None:
    """Let every token of a sequence meet all of them."""
    q_NHK, k_NGK, v_NGK, y_NHK = _heads(d_head, q, k, v, out)
    places = current.counts_B, current.firsts_B, current.lengths_B
    if stored == "float32":
        ops.attention_packed(q_NHK, k_NGK, v_NGK, *places, bias_HS1, **options, out=y_NHK)
    else:
        k_stored, v_stored = current.stored("keys", k_NGK, stored), current.stored("values", v_NGK, stored)
        _attend_to(k_stored, v_stored, q_NHK, places, bias_HS1, y_NHK, **options)


def _keep_source(current: SourcePass, out: np.ndarray, *kv: np.ndarray, layer: int, d_head: int) -> None:
    """Put keys and values of sources into the cache."""
    current.cache.sources.write(layer, current.rows_N, *_heads(d_head, *kv))


def _outputs(current: CachedPass, out: np.ndarray, x: np.ndarray) -> None:
    """Keep the rows whose results are wanted."""
    ops.embedding(current.chosen_O, x, out=out)


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
    ops.embedding(current.firsts_B, x, out=out)


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
OPS_OF = {  # what does all the work of a special step, where something does
    "rotate": "rotary",
    "attend": "attention_packed",
    "attend_source": "attention_packed",
    "attend_all": "attention_packed",
    "keep_source": "store_rows",
    "outputs": "embedding",
    "pool_first": "embedding",
}
CHOOSING = ("outputs", "pool_first", "pool_mean")  # their results have fewer rows than there are tokens
