"""The steps of a Program that know tokens and sequences: lookup, rotation, attention over the cache, choice of rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.dispatch import ops
from minislm.errors import UsageError
from minislm.inference.cache import KVCache
from minislm.layers.attention import Rotary


@dataclass(frozen=True)
class Pass:
    """One run over N packed tokens of B sequences: the sequence table and what follows from it.

    Parameters
    ----------
    cache : KVCache
        Holds what came before.
    slots_B, starts_B, counts_B : ndarray of int64, (B,)
        The table: cache slot, position of the first new token, and number of new tokens of each sequence.
    slots_N, positions_N : ndarray of int64, (N,)
        Cache slot and position of each token.
    chosen_O : ndarray of int64, (O,)
        The rows whose results are wanted.
    """

    cache: KVCache
    slots_B: np.ndarray
    starts_B: np.ndarray
    counts_B: np.ndarray
    slots_N: np.ndarray
    positions_N: np.ndarray
    chosen_O: np.ndarray

    @classmethod
    def begin(cls, cache: KVCache, slots: np.ndarray, counts: np.ndarray, *, every: bool) -> Pass:
        """Complete a sequence table by what the cache holds.

        Parameters
        ----------
        cache : KVCache
            Holds what came before.
        slots : array_like of int, (B,)
            The cache slot of each sequence.
        counts : array_like of int, (B,)
            New tokens of each, at least 1.
        every : bool
            Whether all rows are chosen rather than each sequence's last.

        Returns
        -------
        Pass
            The pass.

        Raises
        ------
        GenerationError, UsageError
            As `KVCache.place`; also code ``bad_counts`` for no sequences or a count of 0.
        """
        slots_B, counts_B = np.asarray(slots, np.int64), np.asarray(counts, np.int64)
        slots_N, positions_N = cache.place(slots_B, counts_B)
        if not counts_B.size or counts_B.min() < 1:
            raise UsageError("bad_counts", f"expected one or more sequences of new tokens, not {counts_B.tolist()}")
        chosen_O = np.arange(slots_N.size) if every else np.cumsum(counts_B) - 1
        return cls(cache, slots_B, cache.lengths_C[slots_B], counts_B, slots_N, positions_N, chosen_O)


def _rows(current: Pass, out: np.ndarray, ids_N: np.ndarray, weight: Any) -> None:
    """Look up a row of the Weight for each id."""
    np.copyto(out, weight.rows(ids_N))


def _rotate(
    current: Pass, out: np.ndarray, x: np.ndarray, positions_N: np.ndarray, *, d_head: int, rotary: Rotary
) -> None:
    """Rotate each head by the token's position."""
    x_NHK, y_NHK = (array.reshape(len(array), -1, d_head) for array in (x, out))
    ops.rotary(x_NHK, positions_N, **dataclasses.asdict(rotary), out=y_NHK)


def _attend(
    current: Pass, out: np.ndarray, *qkv: np.ndarray, layer: int, d_head: int, window: int | None, scale: float | None
) -> None:
    """Append the keys and values; one op for all sequences with one new token, one for each of the others.

    Which op serves a sequence depends on its own count alone, never on who else is in the pass.
    """
    q_NHK, k_NGK, v_NGK, y_NHK = (array.reshape(len(array), -1, d_head) for array in (*qkv, out))
    current.cache.write(layer, current.slots_N, current.positions_N, k_NGK, v_NGK)
    k_CSGK, v_CSGK = current.cache.k_layers[layer], current.cache.v_layers[layer]
    ends_B, alone_B = np.cumsum(current.counts_B), current.counts_B == 1
    if alone_B.all():
        ops.attention_one(
            q_NHK, k_CSGK, v_CSGK, current.slots_B, current.starts_B + 1, window=window, scale=scale, out=y_NHK
        )
        return
    if alone_B.any():
        single = ends_B[alone_B] - 1
        slots, lengths = current.slots_B[alone_B], current.starts_B[alone_B] + 1
        y_NHK[single] = ops.attention_one(q_NHK[single], k_CSGK, v_CSGK, slots, lengths, window=window, scale=scale)
    for b in np.flatnonzero(~alone_B):
        slot, start, count = current.slots_B[b], current.starts_B[b], current.counts_B[b]
        new, held = slice(ends_B[b] - count, ends_B[b]), slice(0, start + count)
        ops.attention(
            q_NHK[None, new],
            k_CSGK[slot : slot + 1, held],
            v_CSGK[slot : slot + 1, held],
            causal=True,
            window=window,
            starts_B=current.starts_B[b : b + 1],
            scale=scale,
            out=y_NHK[None, new],
        )


def _outputs(current: Pass, out: np.ndarray, x: np.ndarray) -> None:
    """Keep the rows whose results are wanted."""
    np.copyto(out, x[current.chosen_O])


SPECIAL: dict[str, Callable[..., None]] = {"rows": _rows, "rotate": _rotate, "attend": _attend, "outputs": _outputs}
