"""The law of lowering: a Program gives what forward gives, however its tokens are cut into passes and mixed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from minislm.inference.program import Program
from minislm.layers.base import Context
from minislm.models.base import Model
from minislm.models.encoder import Encoder
from minislm.testing.batches import new_cache, sample_context, sample_ids
from minislm.testing.models import assert_same_logits

N_ROWS = 4
SLOTS = (2, 0, 3, 1)  # the cache slot of each row: in an order of no special kind


def check_program_equals_forward(model: Model, n_positions: int = 7, bound: float = 1e-5) -> None:
    """Check a Program against the full forward: every split of a prompt, and random mixes of sequences.

    Texts of an encoder and sources of an encoder-decoder are packed in mixes too, of equal and of different lengths.

    Parameters
    ----------
    model : Model
        Of any family, float32, whose context holds `n_positions`.
    n_positions : int
        Longest sequence.
    bound : float
        Largest difference, relative to the largest logit.

    Raises
    ------
    AssertionError
        Where a result differs.
    """
    if isinstance(model, Encoder):
        _check_packed_texts(model, n_positions, bound)
    else:
        _check_decoding(model, n_positions, bound)


def _check_packed_texts(model: Encoder, n_positions: int, bound: float) -> None:
    """Check every result, all together and each alone, for mixes of lengths."""
    rng = np.random.default_rng(n_positions)
    whole = Program.of(model)
    for mix in range(3):
        counts_B = rng.integers(1, n_positions + 1, N_ROWS) if mix else np.full(N_ROWS, n_positions)
        ids_BT = sample_ids(model, N_ROWS, n_positions, mix)
        context = dataclasses.replace(sample_context(model, N_ROWS, n_positions, mix), lengths_B=counts_B)
        expected = _packed_results(model, ids_BT, context)
        real_BT = np.arange(n_positions) < counts_B[:, None]
        types_N = None if context.types_BT is None else context.types_BT[real_BT]
        found = whole.run_all(ids_BT[real_BT], counts_B, types_N)
        assert found.keys() == expected.keys(), f"results {sorted(found)}, expected {sorted(expected)}"
        for name, y in expected.items():
            assert_same_logits(found[name], y, bound, f"{name}, mix {mix}")
            alone = Program.of(model, [name]).run_all(ids_BT[real_BT], counts_B, types_N)
            assert_same_logits(alone[name], y, bound, f"{name} without the others, mix {mix}")


def _packed_results(model: Encoder, ids_BT: np.ndarray, context: Context) -> dict[str, np.ndarray]:
    """Run forward, and lay what it says of real tokens row after row, as a Program does."""
    mask_BT = context.key_mask(ids_BT.shape[1])
    said = model.forward(ids_BT, context)
    kinds = {head.name: head.kind for head in model.config.heads}
    found = {"hidden": np.asarray(model.hidden(ids_BT, context))[mask_BT]}
    for name, y in said.items():
        by_token = y.swapaxes(1, 2) if kinds[name] == "span" else y
        found[name] = y if kinds[name] == "sequence" else by_token[mask_BT]
    return found


def _check_decoding(model: Model, n_positions: int, bound: float) -> None:
    """Check a decoder, or both halves of an encoder-decoder."""
    rng = np.random.default_rng(n_positions)
    ids_BT = sample_ids(model, N_ROWS, n_positions)
    source = dataclasses.replace(sample_context(model, N_ROWS, n_positions, padding=2), lengths_B=None)
    full_BTV = np.asarray(model.forward(ids_BT, source), np.float32)
    check = _Decoding(model, ids_BT, full_BTV, source, bound)
    for split in range(1, n_positions + 1):
        counts: list[Any] = [[split, 0, 0, 0]] + [[1, 0, 0, 0]] * (n_positions - split)
        check.passes(counts, f"prompt split at {split}")
    for mix in range(3):
        left = np.full(N_ROWS, n_positions)
        counts = []
        while left.any():
            counts.append(np.minimum(left, rng.integers(0, 4, N_ROWS)))
            left -= counts[-1]
        check.passes(counts, f"batch mix {mix}")


class _Decoding:
    """Runs passes of four sequences and compares what they give with the full forward."""

    def __init__(self, model: Model, ids: np.ndarray, full: np.ndarray, source: Context, bound: float) -> None:
        self.model, self.ids, self.full, self.source, self.bound = model, ids, full, source, bound
        self.program = Program.of(model)

    def passes(self, counts: Sequence[Any], what: str) -> None:
        """Run passes with so many new tokens of each sequence."""
        n_positions = self.ids.shape[1]
        cache = new_cache(self.model, N_ROWS, n_positions, 0 if self.source.source_BS is None else n_positions)
        self.read_sources(cache, what)
        done = dict.fromkeys(range(N_ROWS), 0)
        for number, new in enumerate(counts):
            rows = [row for row in (1, 3, 0, 2) if new[row]]
            if not rows:
                continue
            pieces = [(row, slice(done[row], done[row] + int(new[row]))) for row in rows]
            packed = np.concatenate([self.ids[piece] for piece in pieces])
            expected = np.concatenate([self.full[piece] for piece in pieces])
            every = number % 2 == 0
            table = np.array([SLOTS[row] for row in rows]), np.array([new[row] for row in rows])
            got = self.program.run(packed, *table, cache, every=every)
            ends = np.cumsum(table[1]) - 1
            assert_same_logits(got, expected if every else expected[ends], self.bound, f"{what}, pass {number}")
            for row in rows:
                done[row] += int(new[row])
            assert all(cache.lengths_C[SLOTS[row]] == done[row] for row in done), f"{what}: lengths {cache.lengths_C}"

    def read_sources(self, cache: Any, what: str) -> None:
        """Run an encoder over all sources, of which the first is shorter; then once more over one of them alone."""
        if self.source.source_BS is None or self.source.source_lengths_B is None:
            return
        slots, counts = np.array(SLOTS), self.source.source_lengths_B
        real = np.arange(self.source.source_BS.shape[1]) < counts[:, None]
        source_program = Program.of_source(self.model)
        source_program.run_all(self.source.source_BS[real], counts, cache=cache, slots_B=slots)
        again = self.source.source_BS[2, : counts[2]]
        source_program.run_all(again, counts[2:3], cache=cache, slots_B=slots[2:3])
        assert np.array_equal(cache.source_lengths_C[slots], counts), f"{what}: sources {cache.source_lengths_C}"
