"""KVCache: the keys and values of every sequence in progress. It owns the positions: nobody passes a start."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minislm.config import LayerSizes
from minislm.errors import GenerationError, UsageError, unknown
from minislm.inference.sources import Sources
from minislm.inference.stored import Stored
from minislm.ops.packed import STORED


class KVCache:
    """Slots of one sequence each, with a length each.

    A pass over some slots appends its keys and values layer by layer, all at the lengths before the pass, and then
    advances those lengths once. Positions beyond a slot's length hold zeros or what an unfinished pass left there, and
    are never read as keys.

    Parameters
    ----------
    k_layers, v_layers : list of Stored, (C, S, G, K)
        Keys and values of each layer: C slots, S positions (the capacity), G heads of width K, which may differ from
        layer to layer.
    sources : Sources
        The cross part: keys and values of what an encoder read, which a decoder's cross-attention reads.
    """

    def __init__(self, k_layers: list[Stored], v_layers: list[Stored], sources: Sources) -> None:
        self.k_layers = k_layers
        self.v_layers = v_layers
        self.sources = sources
        self.n_slots, self.capacity = k_layers[0].array.shape[:2]
        self.lengths_C = np.zeros(self.n_slots, np.int64)
        self.source_lengths_C = sources.lengths_C  # 0: no source
        self._claimed_C = np.zeros(self.n_slots, bool)

    @classmethod
    def create(
        cls,
        sizes: Sequence[LayerSizes],
        slots: int,
        capacity: int,
        *,
        source_capacity: int = 0,
        dtype: str = "float32",
    ) -> KVCache:
        """Allocate an empty cache.

        Parameters
        ----------
        sizes : sequence of LayerSizes
            One entry for each layer, ``config.layers``.
        slots : int
            Number of sequences that can be in progress at once.
        capacity : int
            Positions of each slot.
        source_capacity : int
            Positions of each slot's source, for an encoder-decoder; 0: there are no sources.
        dtype : {"float32", "float16", "int8"}
            How keys and values are stored: in 4 bytes a number, in 2, or in 1 with 4 more for each head of a position.
            A Program attends to int8 in whole numbers; `append` and `source` give floats of any.

        Returns
        -------
        KVCache
            With every slot free and of length 0.

        Raises
        ------
        UsageError
            Code ``bad_cache_size``: slots or capacity below 1, or less than no source.
        UnsupportedError
            Code ``unknown_cache_dtype``.
        """
        if slots < 1 or capacity < 1 or source_capacity < 0:
            raise UsageError(
                "bad_cache_size",
                f"slots and capacity must be at least 1 and source_capacity at least 0, not {slots}, {capacity} and "
                f"{source_capacity}",
            )
        if dtype not in STORED:
            raise unknown("cache_dtype", dtype, STORED)
        shapes = [(slots, capacity, layer.n_kv_heads, layer.d_head) for layer in sizes]
        k_layers, v_layers = ([Stored(shape, dtype) for shape in shapes] for _ in range(2))
        return cls(k_layers, v_layers, Sources(sizes, slots, source_capacity, dtype))

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values, used or not."""
        return sum(array.nbytes for array in self.arrays())

    @property
    def is_free(self) -> bool:
        """Whether no slot is claimed."""
        return not self._claimed_C.any()

    def serves(self, slots: int, capacity: int, source_capacity: int, dtype: str) -> bool:
        """Tell whether it has room for what `create` would make.

        Parameters
        ----------
        slots, capacity, source_capacity : int
            As of `create`.
        dtype : str
            The same.

        Returns
        -------
        bool
            Whether it has as many slots and positions, or more, of the same kind.
        """
        sizes = (self.n_slots, slots), (self.capacity, capacity), (self.sources.capacity, source_capacity)
        return all(mine >= wanted for mine, wanted in sizes) and self.k_layers[0].array.dtype == dtype

    def arrays(self) -> list[np.ndarray]:
        """List all keys and values, those of sources and their scales among them.

        Returns
        -------
        list of ndarray
            They stay where they are as long as the cache is there.
        """
        parts = (part for both in (self, self.sources) for part in (*both.k_layers, *both.v_layers))
        return [array for part in parts for array in (part.array, part.scales) if array is not None]

    def claim(self) -> int:
        """Take the first free slot.

        Returns
        -------
        int
            The slot, of length 0, until it is released.

        Raises
        ------
        GenerationError
            Code ``kv_cache_full``: every slot is claimed.
        """
        if self._claimed_C.all():
            raise GenerationError(
                "kv_cache_full", f"all {self.n_slots} cache slots are claimed; release one or create more slots"
            )
        slot = int(self._claimed_C.argmin())
        self._claimed_C[slot] = True
        return slot

    def release(self, slot: int) -> None:
        """Give a claimed slot back and forget its sequence and source.

        Parameters
        ----------
        slot : int
            A claimed slot.

        Raises
        ------
        UsageError
            Code ``bad_slot``: it is not claimed.
        """
        self.truncate(slot, 0)
        self.sources.place(np.array([slot]), np.array([0]))
        self._claimed_C[slot] = False

    def place(self, slots_B: np.ndarray, counts_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tell where the next tokens of some sequences go, and check that they fit.

        Parameters
        ----------
        slots_B : ndarray of int64, (B,)
            Claimed slots, all different.
        counts_B : ndarray of int64, (B,)
            New tokens of each.

        Returns
        -------
        rows_N : ndarray of int64, (N,)
            The row of each new token, N = sum of the counts, sequence after sequence; rows are positions, counted over
            all slots.
        positions_N : ndarray of int64, (N,)
            Its position.

        Raises
        ------
        GenerationError
            Code ``kv_cache_full``: a sequence would grow beyond the capacity.
        UsageError
            Code ``bad_slot``: a slot is not claimed or comes twice. Code ``bad_counts``: not one count, of at least 0,
            for each slot.
        """
        slots_B, counts_B = np.asarray(slots_B, np.int64), np.asarray(counts_B, np.int64)
        starts_B = self._starts(slots_B, counts_B)
        if counts_B.size and counts_B.min() == counts_B.max() == 1:  # generation: small calls delay it
            return slots_B * self.capacity + starts_B, starts_B
        offsets_B = np.cumsum(counts_B) - counts_B
        positions_N = np.arange(counts_B.sum()) + np.repeat(starts_B - offsets_B, counts_B)
        return np.repeat(slots_B * self.capacity, counts_B) + positions_N, positions_N

    def append(
        self,
        layer: int,
        slots_B: np.ndarray,
        k_BTGK: np.ndarray,
        v_BTGK: np.ndarray,
        lengths_B: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Write a layer's new keys and values after those in the cache, without advancing the lengths.

        Parameters
        ----------
        layer : int
            Index of the layer.
        slots_B : ndarray of int64, (B,)
            The slot of each row; claimed, all different.
        k_BTGK, v_BTGK : ndarray of float32, (B, T, G, K)
            New keys and values, already rotated.
        lengths_B : ndarray of int64, (B,), optional
            How many of the T positions of each row are real; the rest is padding and is not stored. None: all T.

        Returns
        -------
        k_BSGK, v_BSGK : ndarray of float32, (B, S, G, K)
            Old and new keys and values of these slots, S the longest; views of the cache where the slots are
            neighbours in order.
        starts_B : ndarray of int64, (B,)
            The position of each row's first new token.

        Raises
        ------
        GenerationError
            Code ``kv_cache_full``: a sequence would grow beyond the capacity.
        UsageError
            As `place`.
        """
        slots_B = np.asarray(slots_B, np.int64)
        counts_B, k_NGK, v_NGK = _packed(k_BTGK, v_BTGK, lengths_B)
        self.write(layer, self.place(slots_B, counts_B)[0], k_NGK, v_NGK)
        starts_B = self.lengths_C[slots_B]
        longest = int((starts_B + counts_B).max(initial=0))
        return *self._read(self, layer, slots_B, longest), starts_B

    def write(self, layer: int, rows_N: np.ndarray, k_NGK: np.ndarray, v_NGK: np.ndarray) -> None:
        """Write a layer's new keys and values where `place` said.

        Parameters
        ----------
        layer : int
            Index of the layer.
        rows_N : ndarray of int64, (N,)
            What `place` returned for this pass.
        k_NGK, v_NGK : ndarray of float32, (N, G, K)
            Keys, already rotated, and values of the new tokens.
        """
        self.k_layers[layer].write(rows_N, k_NGK)
        self.v_layers[layer].write(rows_N, v_NGK)

    def advance(self, slots_B: np.ndarray, counts_B: np.ndarray) -> None:
        """Count what every layer has appended as part of the sequences; once a pass.

        Parameters
        ----------
        slots_B : ndarray of int64, (B,)
            The slots of the pass.
        counts_B : ndarray of int64, (B,)
            New tokens of each.

        Raises
        ------
        GenerationError, UsageError
            As `place`.
        """
        slots_B, counts_B = np.asarray(slots_B, np.int64), np.asarray(counts_B, np.int64)
        self.lengths_C[slots_B] = self._starts(slots_B, counts_B) + counts_B

    def fill_source(
        self,
        layer: int,
        slots_B: np.ndarray,
        k_BSGK: np.ndarray,
        v_BSGK: np.ndarray,
        lengths_B: np.ndarray | None = None,
    ) -> None:
        """Write a layer's keys and values of new sources, in place of those that the slots had.

        Parameters
        ----------
        layer : int
            Index of the layer.
        slots_B : ndarray of int64, (B,)
            The slot of each row; claimed, all different.
        k_BSGK, v_BSGK : ndarray of float32, (B, S, G, K)
            Keys and values of each source.
        lengths_B : ndarray of int64, (B,), optional
            How many of the S positions of each row are real. None: all S.

        Raises
        ------
        GenerationError
            Code ``kv_cache_full``: a source is longer than ``source_capacity``.
        UsageError
            Codes ``bad_slot`` and ``bad_counts``.
        """
        slots_B = np.asarray(slots_B, np.int64)
        counts_B, k_NGK, v_NGK = _packed(k_BSGK, v_BSGK, lengths_B)
        self.sources.write(layer, self.place_source(slots_B, counts_B)[0], k_NGK, v_NGK)

    def place_source(self, slots_B: np.ndarray, counts_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give slots new sources, and tell where their keys and values go: `Sources.place` after a check of the slots.

        Parameters
        ----------
        slots_B : ndarray of int64, (B,)
            Claimed slots, all different.
        counts_B : ndarray of int64, (B,)
            Positions of each source.

        Returns
        -------
        rows_N : ndarray of int64, (N,)
            The row of each position, source after source, counted over all sources.
        positions_N : ndarray of int64, (N,)
            Its place there.

        Raises
        ------
        GenerationError, UsageError
            As `fill_source`.
        """
        self._check(slots_B)
        return self.sources.place(slots_B, counts_B)

    def source(self, layer: int, slots_B: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a layer's keys and values of the sources of some slots.

        Parameters
        ----------
        layer : int
            Index of the layer.
        slots_B : ndarray of int64, (B,)
            Claimed slots.

        Returns
        -------
        k_BSGK, v_BSGK : ndarray of float32, (B, S, G, K)
            Keys and values, S the longest source; views of the cache where the sources lie one after the other.
        lengths_B : ndarray of int64, (B,)
            How many of the S positions of each are real.

        Raises
        ------
        UsageError
            Code ``bad_slot``: a slot is not claimed or comes twice. Code ``no_source``: a slot has no source.
        """
        slots_B = np.asarray(slots_B, np.int64)
        self._check(slots_B)
        rows_B, lengths_B = self.sources.read(slots_B)
        return *self._read(self.sources, layer, rows_B, int(lengths_B.max(initial=0))), lengths_B

    def truncate(self, slot: int, length: int) -> None:
        """Forget the end of a sequence; its source stays.

        Parameters
        ----------
        slot : int
            A claimed slot.
        length : int
            Positions to keep, at most those that it holds.

        Raises
        ------
        UsageError
            Code ``bad_slot``: it is not claimed. Code ``bad_length``: it holds fewer positions.
        """
        self._check(np.array([slot]))
        held = int(self.lengths_C[slot])
        if not 0 <= length <= held:
            raise UsageError("bad_length", f"cache slot {slot} holds {held} positions and cannot keep {length}")
        for stored in (*self.k_layers, *self.v_layers):
            stored.clear(slot, length, held)
        self.lengths_C[slot] = length

    def reorder(self, slots_B: np.ndarray, sources_B: np.ndarray) -> None:
        """Let slots continue the sequences of other slots, all at once, as beam search does.

        Keys and values of sequences are copied where a slot changes; those of encoders' sources are shared.

        Parameters
        ----------
        slots_B : ndarray of int64, (B,)
            Claimed slots that are overwritten, all different.
        sources_B : ndarray of int64, (B,)
            Claimed slots whose sequences they take; one may come more than once.

        Raises
        ------
        UsageError
            Code ``bad_slot``: a slot is not claimed or is overwritten twice. Code ``bad_counts``: not one source for
            each slot.
        """
        slots_B, sources_B = np.asarray(slots_B, np.int64), np.asarray(sources_B, np.int64)
        self._check(slots_B)
        self._check(np.unique(sources_B))
        if slots_B.shape != sources_B.shape:
            raise UsageError(
                "bad_counts", f"expected one source for each of {slots_B.size} slots, not {sources_B.size}"
            )
        changed_B = slots_B != sources_B
        changed, origins = slots_B[changed_B], sources_B[changed_B]
        longest = int(max(self.lengths_C[changed].max(initial=0), self.lengths_C[origins].max(initial=0)))
        for stored in (*self.k_layers, *self.v_layers):
            stored.copy(changed, origins, longest)
        self.lengths_C[changed] = self.lengths_C[origins]
        self.sources.share(changed, origins)

    @staticmethod
    def _read(part: KVCache | Sources, layer: int, rows_B: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rows of a layer's keys and values up to a length; views where `Stored.read` has them."""
        return part.k_layers[layer].read(rows_B, longest), part.v_layers[layer].read(rows_B, longest)

    def _starts(self, slots_B: np.ndarray, counts_B: np.ndarray) -> np.ndarray:
        """Return where the next tokens of some slots begin, after a check that they fit."""
        self._check(slots_B)
        if counts_B.shape != slots_B.shape or (counts_B < 0).any():
            raise UsageError("bad_counts", f"expected one count >= 0 for each of {slots_B.size} slots, not {counts_B}")
        starts_B: np.ndarray = self.lengths_C[slots_B]
        full_B = starts_B + counts_B > self.capacity
        if full_B.any():
            b = int(full_B.argmax())
            raise GenerationError(
                "kv_cache_full",
                f"cache slot {slots_B[b]} holds {starts_B[b]} of {self.capacity} positions and {counts_B[b]} more were "
                "to be appended; truncate or release it, or create the cache with more capacity",
            )
        return starts_B

    def _check(self, slots_B: np.ndarray) -> None:
        """Refuse slots that are out of range, free, or named twice."""
        slots = slots_B.tolist()  # few: of whole numbers Python sees to faster than NumPy
        if len({*slots}) < len(slots) or not all(0 <= slot < self.n_slots and self._claimed_C[slot] for slot in slots):
            raise UsageError("bad_slot", f"expected different claimed slots among 0 to {self.n_slots - 1}, not {slots}")


def _packed(
    k_BTGK: np.ndarray, v_BTGK: np.ndarray, lengths_B: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how many positions of each row are real, and the keys and values of these, row after row."""
    n_rows, n_new = k_BTGK.shape[:2]
    if lengths_B is None:
        k_NGK, v_NGK = (new.reshape(-1, *new.shape[2:]) for new in (k_BTGK, v_BTGK))
        return np.full(n_rows, n_new, np.int64), k_NGK, v_NGK
    counts_B = np.asarray(lengths_B, np.int64)
    real_BT = np.arange(n_new) < counts_B[:, None]
    return counts_B, k_BTGK[real_BT], v_BTGK[real_BT]
