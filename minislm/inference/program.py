"""Program: a model as a flat list of steps over preallocated buffers; what the engine runs and a person can print."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from minislm.dispatch import ops, runs_compiled
from minislm.errors import DataError, GenerationError, UsageError, unknown
from minislm.inference.cache import KVCache
from minislm.inference.cost import StepCost, step_cost
from minislm.inference.lowering import INPUTS, Lowering
from minislm.inference.passes import CachedPass, Pass, SourcePass
from minislm.inference.replays import Replays
from minislm.inference.steps import OPS_OF, SPECIAL, Step
from minislm.inference.stored import Stored
from minislm.models.base import Model
from minislm.ops import OPS

KEPT_BYTES = 64 * 2**20  # of a cache that waits for the next call
ROOM = 256  # positions by which caches grow, so that one serves texts of many lengths


@dataclass
class Program(Lowering):
    """A model lowered to steps, one run of which takes the tokens of several sequences, packed without padding.

    The last step's result is the program's, unless some results are named. Each buffer is written by one step; buffers
    whose lives do not overlap share memory, which is allocated once for the largest number of rows. One Program runs in
    one thread at a time.

    Parameters
    ----------
    config : Config
        Of the model: its vocabulary and context bound what `run` accepts.
    steps : list of Step
        In order.
    results : dict of str to int
        The buffers of named results.
    bias_HS1 : ndarray of float32, (H, S1), optional
    panels : bool
    attention : {"float32", "int8"}
        As of `Lowering`.
    """

    def __post_init__(self) -> None:
        self._capacity = 0
        self.memory: list[np.ndarray] = []
        self._replays = Replays()
        self._room: dict[Any, Stored] = {}
        self._cache: KVCache | None = None

    @classmethod
    def of(cls, model: Model, wanted: Iterable[str] | None = None, *, attention: str = "float32") -> Program:
        """Lower a model; of an encoder-decoder, the decoder.

        Parameters
        ----------
        model : Model
            Its arrays are shared.
        wanted : iterable of str, optional
            The named results to compute; steps that only others need are left out. None: all.
        attention : {"float32", "int8"}
            As of `Lowering`, for an encoder; a decoder attends as its cache stores.

        Returns
        -------
        Program
            Whose result is a decoder's logits, or whose named results are what an encoder's heads say.

        Raises
        ------
        UnsupportedError
            Code ``unknown_result``: the model has no result of a wanted name.
        """
        program = cls(model.config, attention=attention)
        model.lower(program.ids, program)
        return program if wanted is None else program._only(list(wanted))

    @classmethod
    def of_source(cls, model: Any, *, attention: str = "float32") -> Program:
        """Lower the encoder of an encoder-decoder.

        Parameters
        ----------
        model : Model
            With a `lower_source`; its arrays are shared.
        attention : {"float32", "int8"}
            As of `Lowering`.

        Returns
        -------
        Program
            Which puts the keys and values of sources into a cache.
        """
        program = cls(model.config.source, attention=attention)
        model.lower_source(program.ids, program)
        return program

    def run(
        self, ids_N: np.ndarray, slots_B: np.ndarray, counts_B: np.ndarray, cache: KVCache, *, every: bool = False
    ) -> np.ndarray:
        """Run the new tokens of some sequences, whose earlier ones are in the cache, and advance the cache.

        Parameters
        ----------
        ids_N : ndarray of int64, (N,)
            Token ids, sequence after sequence, without padding.
        slots_B : ndarray of int64, (B,)
            The claimed cache slot of each sequence.
        counts_B : ndarray of int64, (B,)
            New tokens of each, at least 1; their sum is N.
        cache : KVCache
            Of the model's sizes. It is not advanced when an error is raised.
        every : bool
            Whether to return a row for every token instead of one for each sequence's last.

        Returns
        -------
        ndarray of float32, (B, V) or (N, V)
            The result of the last step: logits.

        Raises
        ------
        GenerationError
            Code ``kv_cache_full`` or ``context_length_exceeded``: no room for the new tokens.
        DataError
            Code ``bad_token_ids``: an id outside the vocabulary.
        UsageError
            Codes ``bad_slot`` and ``bad_counts``: the table contradicts itself, the ids or the cache. Code
            ``no_source``: a sequence of an encoder-decoder has no source.
        """
        current = CachedPass.begin(cache, slots_B, counts_B, every=every, crosses=self._crosses)
        buffers = self._execute(current, ids_N)
        cache.advance(current.slots_B, current.counts_B)
        return buffers[-1].copy()

    def run_all(
        self,
        ids_N: np.ndarray,
        counts_B: np.ndarray,
        types_N: np.ndarray | None = None,
        cache: KVCache | None = None,
        slots_B: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Run whole sequences in which every token sees all others: texts of an encoder, sources of an encoder-decoder.

        Parameters
        ----------
        ids_N : ndarray of int64, (N,)
            Token ids, sequence after sequence, without padding.
        counts_B : ndarray of int64, (B,)
            Tokens of each, at least 1; their sum is N.
        types_N : ndarray of int64, (N,), optional
            Which of its texts each token belongs to; None: all to the first. A model that has no types ignores them.
        cache : KVCache, optional
            For sources: where their keys and values go.
        slots_B : ndarray of int64, (B,), optional
            For sources: the claimed cache slot of each sequence.

        Returns
        -------
        dict of str to ndarray of float32, (N, width) or (B, width)
            The named results, with a row for each token, or for each sequence where it is made of pooled rows.

        Raises
        ------
        GenerationError
            Code ``context_length_exceeded`` or, for sources, ``kv_cache_full``.
        DataError
            Codes ``bad_token_ids`` and ``bad_token_types``: an id or type outside the model's tables.
        UsageError
            Codes ``bad_slot`` and ``bad_counts``.
        """
        if cache is None:
            current = Pass.whole(counts_B, self._room)
        else:
            current = SourcePass.begin(cache, slots_B, counts_B, self._room)
        buffers = self._execute(current, ids_N, types_N)
        return {name: buffers[x].copy() for name, x in self.results.items()}

    def cache(self, slots: int, capacity: int, *, source_capacity: int = 0, dtype: str = "float32") -> KVCache:
        """Return an empty cache: that of an earlier call, whose passes are written down, where it is free and fits.

        Parameters
        ----------
        slots, capacity, source_capacity : int
            As of `KVCache.create`; there may be more of each.
        dtype : str
            The same.

        Returns
        -------
        KVCache
            Whose slots are all free. It is kept unless it is larger than 64 MiB.

        Raises
        ------
        UsageError, UnsupportedError
            As `KVCache.create`.
        """
        kept = self._cache
        if kept is not None and kept.is_free and kept.serves(slots, capacity, source_capacity, dtype):
            return kept
        capacity, source_capacity = (-(-size // ROOM) * ROOM for size in (capacity, source_capacity))
        made = KVCache.create(self.config.layers, slots, capacity, source_capacity=source_capacity, dtype=dtype)
        self._cache = made if made.nbytes <= KEPT_BYTES else None
        return made

    @cached_property
    def _crosses(self) -> bool:
        """Whether a step reads sources."""
        return any(step.op == "attend_source" for step in self.steps)

    def _execute(self, current: Pass, ids_N: np.ndarray, types_N: np.ndarray | None = None) -> list[np.ndarray]:
        """Run every step; return all buffers, of which only the last and those of results still hold their values."""
        ids_N = self._checked(np.asarray(ids_N), current)
        buffers = [ids_N, current.positions_N, self._checked_types(types_N, current)]
        self.reserve(current.n_rows)
        return self._replays.run(self, current, buffers)

    def calls(self, current: Pass, buffers: list[np.ndarray]) -> Iterator[tuple[Step, Callable[[], Any]]]:
        """Lay the steps out over memory, one after the other.

        Parameters
        ----------
        current : Pass
            The pass, for whose rows there is memory.
        buffers : list of ndarray
            Those that are filled already; each step's result is appended.

        Yields
        ------
        Step
            Each step.
        callable
            What does it.
        """
        for step, place in zip(self.steps, self._places, strict=True):
            n_rows = current.n_chosen if step.chosen else current.n_rows
            out = self.memory[place][: n_rows * step.row_bytes].view(step.dtype).reshape(n_rows, step.width)
            inputs = [buffers[x] for x in step.inputs]
            buffers.append(out)
            if step.op in SPECIAL:
                yield step, partial(SPECIAL[step.op], current, out, *inputs, *step.constants, **step.options)
            else:
                yield step, partial(getattr(ops, step.op), *inputs, *step.constants, out=out, **step.options)

    def _checked(self, ids_N: np.ndarray, current: Pass) -> np.ndarray:
        """Return the ids as int64 after a check of their number, their range and their positions."""
        positions_N = current.positions_N
        if ids_N.shape != positions_N.shape:
            raise UsageError("bad_counts", f"{positions_N.size} tokens were counted, the ids have shape {ids_N.shape}")
        if ids_N.dtype.kind not in "iu" or ids_N.min() < 0 or ids_N.max() >= self.config.vocab_size:
            raise DataError(
                "bad_token_ids",
                f"token ids must be whole numbers in 0..{self.config.vocab_size - 1}; these are {ids_N.dtype} and run "
                f"from {ids_N.min()} to {ids_N.max()}; encode the text with the model's own tokenizer",
            )
        if positions_N.max() >= self.config.context:
            raise GenerationError(
                "context_length_exceeded",
                f"position {positions_N.max()} lies outside the model's context of {self.config.context} positions; "
                "pass fewer tokens",
            )
        return ids_N.astype(np.int64, copy=False)

    def _checked_types(self, types_N: np.ndarray | None, current: Pass) -> np.ndarray:
        """Return the types as int64 after a check of their number and, where the model reads them, their range."""
        if types_N is None:
            return np.zeros(current.n_rows, np.int64)
        types_N = np.asarray(types_N, np.int64)
        n_types = min((step.constants[0].shape[0] for step in self.steps if self.types in step.inputs), default=None)
        if types_N.shape != current.positions_N.shape:
            raise UsageError(
                "bad_counts", f"{current.n_rows} tokens were counted, the types have shape {types_N.shape}"
            )
        if n_types is not None and not 0 <= types_N.min() <= types_N.max() < n_types:
            raise DataError("bad_token_types", f"token types must lie in 0..{n_types - 1}; these reach {types_N.max()}")
        return types_N

    def reserve(self, n_rows: int) -> None:
        """Allocate the buffers, unless they are large enough; `run` asks for what it needs.

        Parameters
        ----------
        n_rows : int
            Most packed tokens of a run.
        """
        if n_rows > self._capacity:
            self._places, sizes = self._plan()
            self.memory = [np.empty(n_rows * size, np.uint8) for size in sizes]
            self._capacity = n_rows
            self._replays = Replays()

    def _plan(self) -> tuple[list[int], list[int]]:
        """Give each step's result a piece of memory that is free while it lives; return their bytes for a row too."""
        last_use = {x: step.result for step in self.steps for x in (step.result, *step.inputs)}
        kept = {*range(INPUTS), *self.results.values()}
        places: list[int] = []
        sizes: list[int] = []
        free: list[int] = []
        for step in self.steps:
            place = next((p for p in free if sizes[p] == step.row_bytes), len(sizes))  # so the same row is at one place
            if place < len(sizes):
                free.remove(place)
            else:
                sizes.append(step.row_bytes)
            places.append(place)
            dead = {x for x in (step.result, *step.inputs) if x not in kept and last_use[x] == step.result}
            free.extend(places[x - INPUTS] for x in dead)
        return places, sizes

    def _only(self, wanted: Sequence[str]) -> Program:
        """Return the program without the steps that no wanted result needs."""
        kept = Program(self.config, panels=self.panels, attention=self.attention)
        needed = set()
        for name in wanted:
            if name not in self.results:
                raise unknown("result", name, self.results)
            needed.add(self.results[name])
        for step in reversed(self.steps):
            if step.result in needed:
                needed.update(step.inputs)
        moved = {x: x for x in range(INPUTS)}
        for step in self.steps:
            if step.result in needed:
                inputs = tuple(moved[x] for x in step.inputs)
                moved[step.result] = kept.step(
                    step.op, inputs, constants=step.constants, width=step.width, dtype=step.dtype, **step.options
                )
        kept.results = {name: moved[self.results[name]] for name in wanted}
        return kept

    def row_bytes(self) -> int:
        """Count the memory of the buffers.

        Returns
        -------
        int
            Bytes for each packed token of a run.
        """
        return sum(self._plan()[1])

    def interpreted(self) -> list[str]:
        """List the steps of which Python does a part in every pass, because no kernel of their op is compiled.

        Returns
        -------
        list of str
            Their ops, each once. The other steps of a pass whose shape came before are done by one call between two of
            these; a kernel may still decline some sizes.
        """
        done = {step.op: step.options.get("norm") or OPS_OF.get(step.op, step.op) for step in self.steps}
        return sorted(name for name, op in done.items() if op not in OPS or not runs_compiled(op))

    def describe(self, n_rows: int = 1, length: int = 1, *, source_length: int = 1) -> list[StepCost]:
        """Tell what each step costs.

        Parameters
        ----------
        n_rows : int
            New tokens, all of one sequence.
        length : int
            Keys that each of them meets in its own sequence.
        source_length : int
            Keys that each of them meets in its source.

        Returns
        -------
        list of StepCost
            One for each step, in order.
        """
        costs = []
        for step in self.steps:
            widths = [self.writer(x).width for x in step.inputs if x >= INPUTS]
            n_keys = source_length if step.op == "attend_source" else length
            costs.append(step_cost(step, widths, 1 if step.chosen else n_rows, n_keys))
        return costs
