"""Program: a model as a flat list of steps over preallocated buffers; what the engine runs and a person can print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from minislm.config import Config
from minislm.dispatch import ops
from minislm.errors import DataError, GenerationError, UsageError
from minislm.inference.cache import KVCache
from minislm.inference.steps import SPECIAL, Pass
from minislm.layers.attention import Rotary
from minislm.models.base import Model
from minislm.weights.base import Weight


class Step(NamedTuple):
    """One line of a program: read some buffers, write one.

    Parameters
    ----------
    op : str
        An op, called as ``op(*inputs, *constants, **options)``, or a step of `inference.steps`.
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
        Whether the result has a row for each output asked for (from ``outputs`` on) instead of one for each token.
    """

    op: str
    inputs: tuple[int, ...]
    constants: tuple[Any, ...]
    options: Mapping[str, Any]
    result: int
    width: int
    chosen: bool


class StepCost(NamedTuple):
    """One line of `Program.describe`.

    Parameters
    ----------
    result : int
        The buffer that the step writes.
    op : str
        What it does.
    inputs : tuple of int
        The buffers that it reads; 0 holds the token ids, 1 the positions.
    constants : tuple of tuple of int
        Shapes of the model's arrays that it reads.
    shape : tuple of int
        Rows and width of its result.
    size_bytes : int
        Bytes that it reads of the model; of the cache, for ``attend``.
    operations : int
        Multiplications and additions.
    """

    result: int
    op: str
    inputs: tuple[int, ...]
    constants: tuple[tuple[int, ...], ...]
    shape: tuple[int, int]
    size_bytes: int
    operations: int


@dataclass
class Program:
    """A model lowered to steps, one run of which takes the new tokens of several sequences, packed without padding.

    The layers' `lower` appends the steps; the last one's result is the program's. Each buffer holds a float32 row for
    each packed token and is written by one step; buffers whose lives do not overlap share memory, which is allocated
    once for the largest number of rows. One Program runs in one thread at a time.

    Parameters
    ----------
    config : Config
        Of the model: its vocabulary and context bound what `run` accepts.
    steps : list of Step
        In order.
    """

    config: Config
    steps: list[Step] = field(default_factory=list)

    ids = 0  # the two buffers that are filled before the first step: a whole number for each token
    positions = 1

    def __post_init__(self) -> None:
        self._capacity = 0

    @classmethod
    def of(cls, model: Model) -> Program:
        """Lower a model.

        Parameters
        ----------
        model : Model
            A causal decoder; its arrays are shared.

        Returns
        -------
        Program
            Whose result is the model's logits.
        """
        program = cls(model.config)
        model.lower(program.ids, program)
        return program

    def step(
        self, op: str, inputs: tuple[int, ...], *, constants: tuple[Any, ...] = (), width: int, **options: Any
    ) -> int:
        """Append a step.

        Parameters
        ----------
        op : str
            Name of the op; its first result is kept.
        inputs : tuple of int
            Buffers, passed as arrays (rows, width) before the constants.
        constants : tuple
            Arrays of the model, passed after the inputs.
        width : int
            Numbers in each row of the result.
        **options : Any
            Keyword arguments of the op.

        Returns
        -------
        int
            The buffer of the result.
        """
        chosen = op == "outputs" or any(self.steps[x - 2].chosen for x in inputs if x > self.positions)
        result = len(self.steps) + 2
        self.steps.append(Step(op, inputs, constants, options, result, width, chosen))
        return result

    def rows(self, weight: Weight, ids: int) -> int:
        """Append a lookup of rows.

        Parameters
        ----------
        weight : Weight
            The table.
        ids : int
            The buffer with the numbers of the rows: `Program.ids` or `Program.positions`.

        Returns
        -------
        int
            The buffer of the rows.
        """
        return self.step("rows", (ids,), constants=(weight,), width=weight.shape[1])

    def attend(
        self,
        q: int,
        k: int,
        v: int,
        *,
        layer: int,
        n_heads: int,
        n_kv_heads: int,
        d_head: int,
        window: int | None = None,
        scale: float | None = None,
        rotary: Rotary | None = None,
    ) -> int:
        """Append causal attention of each token over its sequence in the cache, which takes the new keys first.

        Parameters
        ----------
        q, k, v : int
            Buffers of width ``n_heads * d_head`` and twice ``n_kv_heads * d_head``.
        layer : int
            Index of the layer in the cache.
        n_heads, n_kv_heads, d_head : int
            Sizes.
        window, scale : optional
            As of `ops.attention`.
        rotary : Rotary, optional
            Rotation of queries and keys; None: none.

        Returns
        -------
        int
            The buffer of the result, of width ``n_heads * d_head``.
        """
        if rotary is not None:
            q = self.step("rotate", (q, self.positions), width=n_heads * d_head, d_head=d_head, rotary=rotary)
            k = self.step("rotate", (k, self.positions), width=n_kv_heads * d_head, d_head=d_head, rotary=rotary)
        return self.step(
            "attend", (q, k, v), width=n_heads * d_head, layer=layer, d_head=d_head, window=window, scale=scale
        )

    def outputs(self, x: int) -> int:
        """Append the choice of the rows whose results are wanted: each sequence's last, or all.

        Parameters
        ----------
        x : int
            A buffer with a row for each token.

        Returns
        -------
        int
            The buffer of the chosen rows.
        """
        return self.step("outputs", (x,), width=self.steps[x - 2].width)

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
            Codes ``bad_slot`` and ``bad_counts``: the table contradicts itself, the ids or the cache.
        """
        current = Pass.begin(cache, slots_B, counts_B, every=every)
        buffers = [self._checked(np.asarray(ids_N), current), current.positions_N]
        self.reserve(current.positions_N.size)
        for step, place in zip(self.steps, self._places, strict=True):
            n_rows = current.chosen_O.size if step.chosen else current.positions_N.size
            out = self._memory[place][: n_rows * step.width].reshape(n_rows, step.width)
            inputs = [buffers[x] for x in step.inputs]
            if step.op in SPECIAL:
                SPECIAL[step.op](current, out, *inputs, *step.constants, **step.options)
            else:
                getattr(ops, step.op)(*inputs, *step.constants, out=out, **step.options)
            buffers.append(out)
        cache.advance(current.slots_B, current.counts_B)
        return buffers[-1].copy()

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

    def reserve(self, n_rows: int) -> None:
        """Allocate the buffers, unless they are large enough; `run` asks for what it needs.

        Parameters
        ----------
        n_rows : int
            Most packed tokens of a run.
        """
        if n_rows > self._capacity:
            self._places, widths = self._plan()
            self._memory = [np.empty(n_rows * width, np.float32) for width in widths]
            self._capacity = n_rows

    def _plan(self) -> tuple[list[int], list[int]]:
        """Give each step's result a piece of memory that is free while it lives; return the pieces' widths too."""
        last_use = {x: step.result for step in self.steps for x in (step.result, *step.inputs)}
        places: list[int] = []
        widths: list[int] = []
        free: list[int] = []
        for step in self.steps:
            if free:
                place = min(free, key=lambda p: (widths[p] < step.width, abs(widths[p] - step.width)))
                free.remove(place)
                widths[place] = max(widths[place], step.width)
            else:
                place = len(widths)
                widths.append(step.width)
            places.append(place)
            dead = {x for x in (step.result, *step.inputs) if x > self.positions and last_use[x] == step.result}
            free.extend(places[x - 2] for x in dead)
        return places, widths

    def row_bytes(self) -> int:
        """Count the memory of the buffers.

        Returns
        -------
        int
            Bytes for each packed token of a run.
        """
        return 4 * sum(self._plan()[1])

    def describe(self, n_rows: int = 1, length: int = 1) -> list[StepCost]:
        """Tell what each step costs.

        Parameters
        ----------
        n_rows : int
            New tokens, all of one sequence.
        length : int
            Keys that each of them meets.

        Returns
        -------
        list of StepCost
            One for each step, in order.
        """
        return [self._cost(step, n_rows, length) for step in self.steps]

    def _cost(self, step: Step, n_rows: int, length: int) -> StepCost:
        widths = [self.steps[x - 2].width for x in step.inputs if x > self.positions]
        given = (part for x in step.constants for part in (x.arrays().values() if isinstance(x, Weight) else [x]))
        arrays = [array for array in given if array is not None]
        size_bytes = sum(array.nbytes for array in arrays)
        n_results = 1 if step.chosen else n_rows
        if step.op == "attend":
            size_bytes = 4 * length * sum(widths[1:])
        elif step.op == "rows":
            size_bytes = size_bytes * n_rows // step.constants[0].shape[0]
        operations = n_results * _operations(step, widths, arrays, length)
        shapes = tuple(array.shape for array in arrays)
        return StepCost(step.result, step.op, step.inputs, shapes, (n_results, step.width), size_bytes, operations)


def _operations(step: Step, widths: list[int], arrays: list[np.ndarray], length: int) -> int:
    """Count a step's multiplications and additions for one row; one for each result where it is elementwise."""
    if step.op == "attend":
        return 4 * length * step.width  # q with every key, probabilities with every value
    if step.op in ("rows", "outputs"):
        return 0
    if step.op in ("bitmap_product", "nm_product", "csr_product"):
        return 2 * max(array.size for array in arrays if array.dtype.kind == "f")
    if step.op == "low_rank_product":
        return 2 * sum(array.size for array in arrays)
    if step.op == "linear" or step.op.endswith("_product") or "_product_" in step.op:
        return 2 * widths[0] * step.width
    return step.width
