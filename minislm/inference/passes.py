"""Passes: one run of a Program over packed tokens, as its steps see it: the sequence table and what follows from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from minislm.errors import UsageError
from minislm.inference.cache import KVCache
from minislm.inference.stored import Stored
from minislm.ops.packed import rounded_up


@dataclass(frozen=True)
class Pass:
    """One run over N packed tokens of B whole sequences, as an encoder reads them.

    Parameters
    ----------
    counts_B : ndarray of int64, (B,)
        New tokens of each sequence.
    positions_N : ndarray of int64, (N,)
        Position of each token in its sequence.
    firsts_B, lengths_B : ndarray of int64, (B,)
        The row of its first key, and how many keys it has: here its tokens themselves.
    room : dict
        Where `stored` keeps what it has made, for the passes that follow, too.
    """

    counts_B: np.ndarray
    positions_N: np.ndarray
    firsts_B: np.ndarray
    lengths_B: np.ndarray
    room: dict[Any, Stored] = field(default_factory=dict, kw_only=True)

    @classmethod
    def whole(cls, counts: np.ndarray, room: dict[Any, Stored]) -> Self:
        """Lay whole sequences one after the other.

        Parameters
        ----------
        counts : array_like of int, (B,)
            Tokens of each, at least 1.
        room : dict
            As of the class.

        Returns
        -------
        Pass
            The pass.

        Raises
        ------
        UsageError
            Code ``bad_counts``: no sequences, or one without tokens.
        """
        counts_B = _checked(np.asarray(counts, np.int64))
        firsts_B = np.cumsum(counts_B) - counts_B
        positions_N = np.arange(counts_B.sum()) - np.repeat(firsts_B, counts_B)
        return cls(counts_B, positions_N, firsts_B, counts_B, room=room)

    @property
    def n_rows(self) -> int:
        """Tokens."""
        return self.positions_N.size

    @property
    def n_chosen(self) -> int:
        """Rows of a step that has fewer than one for each token."""
        return self.counts_B.size

    @property
    def reach(self) -> tuple[int, ...]:
        """The room that kernels make for the longest sequence, and for the longest source."""
        return (rounded_up(self.lengths_B.max()),)

    def stored(self, side: str, x_NGK: np.ndarray, dtype: str) -> Stored:
        """Store the keys or the values of whole sequences until the next layer stores its own.

        Parameters
        ----------
        side : {"keys", "values"}
            What they are.
        x_NGK : ndarray of float32, (N, G, K)
            One row for each token.
        dtype : str
            One of `ops.packed.STORED`.

        Returns
        -------
        Stored
            With one slot of N positions.
        """
        room, n_rows = self.room.get((side, x_NGK.shape[1:])), len(x_NGK)
        if room is None or room.array.shape[1] < n_rows:
            room = self.room[side, x_NGK.shape[1:]] = Stored((1, rounded_up(n_rows), *x_NGK.shape[1:]), dtype)
        found = room.first(n_rows)
        found.write(None, x_NGK)
        return found


@dataclass(frozen=True)
class SourcePass(Pass):
    """One run over whole sources whose keys and values a cache is to keep.

    Parameters
    ----------
    counts_B, positions_N, firsts_B, lengths_B : ndarray of int64
        As of every `Pass`.
    cache : KVCache
        Keeps them.
    rows_N : ndarray of int64, (N,)
        The row of the cache's sources that each token goes to.
    room : dict
        As of every `Pass`.
    """

    cache: KVCache
    rows_N: np.ndarray

    @classmethod
    def begin(cls, cache: KVCache, slots: Any, counts: np.ndarray, room: dict[Any, Stored]) -> Self:
        """Make room for sources in some slots.

        Parameters
        ----------
        cache : KVCache
            With enough ``source_capacity``.
        slots : array_like of int, (B,)
            The claimed slot of each source.
        counts : array_like of int, (B,)
            Tokens of each, at least 1.
        room : dict
            As of every `Pass`.

        Returns
        -------
        SourcePass
            The pass.

        Raises
        ------
        GenerationError, UsageError
            As `KVCache.place_source`; also code ``bad_counts`` for no sources or one without tokens.
        """
        counts_B = _checked(np.asarray(counts, np.int64))
        rows_N, positions_N = cache.place_source(np.asarray(slots, np.int64), counts_B)
        return cls(counts_B, positions_N, np.cumsum(counts_B) - counts_B, counts_B, cache, rows_N, room=room)


@dataclass(frozen=True)
class CachedPass(Pass):
    """One run over the new tokens of sequences whose earlier ones are in a cache.

    Parameters
    ----------
    counts_B, positions_N : ndarray of int64
        As of every `Pass`.
    firsts_B, lengths_B : ndarray of int64, (B,)
        The row of its first key in the cache, and how many keys it has with those of this pass.
    cache : KVCache
        Holds what came before.
    slots_B : ndarray of int64, (B,)
        Cache slot of each sequence.
    rows_N : ndarray of int64, (N,)
        The row of the cache that each token goes to.
    chosen_O : ndarray of int64, (O,)
        The rows whose results are wanted.
    source_firsts_B, source_lengths_B : ndarray of int64, (B,)
        The row of the first key of its source, and how many keys that has: 0 where no source is read.
    room : dict
        As of every `Pass`; it stays empty.
    """

    cache: KVCache
    slots_B: np.ndarray
    rows_N: np.ndarray
    chosen_O: np.ndarray
    source_firsts_B: np.ndarray
    source_lengths_B: np.ndarray

    @classmethod
    def begin(cls, cache: KVCache, slots: Any, counts: Any, *, every: bool, crosses: bool = False) -> Self:
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
        crosses : bool
            Whether the sources are read.

        Returns
        -------
        CachedPass
            The pass.

        Raises
        ------
        GenerationError, UsageError
            As `KVCache.place`; also code ``bad_counts`` for no sequences or a count of 0, and ``no_source``.
        """
        slots_B, counts_B = np.asarray(slots, np.int64), np.asarray(counts, np.int64)
        rows_N, positions_N = cache.place(slots_B, counts_B)
        _checked(counts_B)
        chosen_O = np.arange(rows_N.size) if every else np.cumsum(counts_B) - 1
        places = slots_B * cache.capacity, cache.lengths_C[slots_B] + counts_B
        source_rows_B, source_lengths_B = cache.sources.read(slots_B) if crosses else (slots_B, np.zeros_like(slots_B))
        sources = source_rows_B * cache.sources.capacity, source_lengths_B
        return cls(counts_B, positions_N, *places, cache, slots_B, rows_N, chosen_O, *sources)

    @property
    def n_chosen(self) -> int:
        """Rows of the results that are wanted."""
        return self.chosen_O.size

    @property
    def reach(self) -> tuple[int, ...]:
        """The room that kernels make for the longest sequence, and for the longest source."""
        return *super().reach, rounded_up(self.source_lengths_B.max(initial=0))


def _checked(counts_B: np.ndarray) -> np.ndarray:
    if not counts_B.size or counts_B.min() < 1:
        raise UsageError("bad_counts", f"expected one or more sequences of new tokens, not {counts_B.tolist()}")
    return counts_B


def cut(lengths: Sequence[int], most: int) -> Iterator[list[tuple[int, int, int]]]:
    """Cut sequences, laid end to end, into passes.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each sequence.
    most : int
        Tokens of a pass, at least 1; the last pass may have fewer.

    Yields
    ------
    list of tuple of (int, int, int)
        For each piece of the pass: the number of its sequence, its first token, and the one after its last.
    """
    pieces, room = list[tuple[int, int, int]](), most
    for number, length in enumerate(lengths):
        first = 0
        while first < length:
            last = min(length, first + room)
            pieces.append((number, first, last))
            room -= last - first
            first = last
            if not room:
                yield pieces
                pieces, room = [], most
    if pieces:
        yield pieces


def gathered(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Gather whole sequences into passes.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each sequence.
    most : int
        Tokens of a pass, unless one sequence alone has more.

    Yields
    ------
    list of int
        The numbers of the sequences of a pass: in the end each once, sorted by length.
    """
    group, total = list[int](), 0
    for number in sorted(range(len(lengths)), key=lengths.__getitem__):
        if group and total + lengths[number] > most:
            yield group
            group, total = [], 0
        group.append(number)
        total += lengths[number]
    if group:
        yield group
