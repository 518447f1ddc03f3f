"""Sources: what cross-attention reads of an encoder's work, written once, shared by slots with one source."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minislm.config import LayerSizes
from minislm.errors import GenerationError, UsageError
from minislm.inference.stored import Stored


class Sources:
    """The cross part of a KV cache: each slot reads one row of keys and values, and may share it with others.

    There are as many rows as slots, so a slot that needs a row of its own always finds one that no other reads.

    Parameters
    ----------
    sizes : sequence of LayerSizes
        One entry for each layer of the decoder.
    slots : int
        Number of slots.
    capacity : int
        Positions of each row; 0: the cache has no cross part.
    dtype : str
        How keys and values are stored.

    Attributes
    ----------
    rows_C : ndarray of int64, (C,)
        The row that each slot reads.
    lengths_C : ndarray of int64, (C,)
        Positions of each slot's source; 0: it has none.
    """

    def __init__(self, sizes: Sequence[LayerSizes], slots: int, capacity: int, dtype: str) -> None:
        shapes = [(slots, capacity, layer.n_kv_heads, layer.d_head) for layer in sizes]
        self.capacity = capacity
        self.k_layers = [Stored(shape, dtype) for shape in shapes]
        self.v_layers = [Stored(shape, dtype) for shape in shapes]
        self.rows_C = np.arange(slots)
        self.lengths_C = np.zeros(slots, np.int64)
        self._written = [0] * slots  # positions of each row that may not be zero

    def place(self, slots_B: np.ndarray, counts_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give slots new sources of some lengths, and tell where their keys and values go.

        Parameters
        ----------
        slots_B : ndarray of int64, (B,)
            Slots, all different.
        counts_B : ndarray of int64, (B,)
            Positions of each source.

        Returns
        -------
        rows_N : ndarray of int64, (N,)
            The place of each position among those of all rows, N = sum of the counts, source after source.
        positions_N : ndarray of int64, (N,)
            The position in its source.

        Raises
        ------
        GenerationError
            Code ``kv_cache_full``: a source is longer than the capacity.
        UsageError
            Code ``bad_counts``: not one count, of at least 0, for each slot.
        """
        if counts_B.shape != slots_B.shape or (counts_B < 0).any():
            raise UsageError("bad_counts", f"expected one count >= 0 for each of {slots_B.size} slots, not {counts_B}")
        if counts_B.max(initial=0) > self.capacity:
            raise GenerationError(
                "kv_cache_full",
                f"a source has {counts_B.max()} positions and the cache room for {self.capacity}; create the cache "
                "with a larger source_capacity",
            )
        for slot, count in zip(slots_B.tolist(), counts_B.tolist(), strict=True):
            if np.count_nonzero(self.rows_C == self.rows_C[slot]) > 1:
                self.rows_C[slot] = np.setdiff1d(np.arange(self.rows_C.size), self.rows_C)[0]
            row = self.rows_C[slot]
            for stored in (*self.k_layers, *self.v_layers):
                stored.clear(row, count, self._written[row])
            self._written[row] = self.lengths_C[slot] = count
        offsets_B = np.cumsum(counts_B) - counts_B
        positions_N = np.arange(counts_B.sum()) - np.repeat(offsets_B, counts_B)
        return np.repeat(self.rows_C[slots_B] * self.capacity, counts_B) + positions_N, positions_N

    def write(self, layer: int, rows_N: np.ndarray, k_NGK: np.ndarray, v_NGK: np.ndarray) -> None:
        """Write a layer's keys and values where `place` said.

        Parameters
        ----------
        layer : int
            Index of the layer.
        rows_N : ndarray of int64, (N,)
            What `place` returned.
        k_NGK, v_NGK : ndarray of float32, (N, G, K)
            Keys and values of the sources.
        """
        self.k_layers[layer].write(rows_N, k_NGK)
        self.v_layers[layer].write(rows_N, v_NGK)

    def read(self, slots_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tell where the sources of some slots are.

        Parameters
        ----------
        slots_B : ndarray of int64, (B,)
            Slots.

        Returns
        -------
        rows_B : ndarray of int64, (B,)
            The row that each reads.
        lengths_B : ndarray of int64, (B,)
            How many positions of it.

        Raises
        ------
        UsageError
            Code ``no_source``: a slot has none.
        """
        lengths_B = self.lengths_C[slots_B]
        if not lengths_B.all():
            empty = slots_B[lengths_B == 0].tolist()
            raise UsageError("no_source", f"cache slots {empty} have no source to attend to; run the encoder for them")
        return self.rows_C[slots_B], lengths_B

    def share(self, slots_B: np.ndarray, sources_B: np.ndarray) -> None:
        """Let slots read what other slots read; nothing is copied.

        Parameters
        ----------
        slots_B : ndarray of int64, (B,)
            Slots, all different.
        sources_B : ndarray of int64, (B,)
            The slots whose rows they are to read.
        """
        self.rows_C[slots_B] = self.rows_C[sources_B]
        self.lengths_C[slots_B] = self.lengths_C[sources_B]
