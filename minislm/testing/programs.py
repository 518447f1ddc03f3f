"""The law of lowering: a Program gives what forward gives, however its tokens are cut into passes and mixed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minislm.inference.cache import KVCache
from minislm.inference.program import Program
from minislm.models.base import Model
from minislm.testing.models import assert_same_logits


def check_program_equals_forward(model: Model, n_positions: int = 7, bound: float = 1e-5) -> None:
    """Check a Program against the full forward, for every split of a prompt and for random mixes of sequences.

    Parameters
    ----------
    model : Model
        A causal decoder, float32, whose context holds `n_positions`.
    n_positions : int
        Longest sequence.
    bound : float
        Largest difference, relative to the largest logit.

    Raises
    ------
    AssertionError
        Where a logit differs.
    """
    rng = np.random.default_rng(n_positions)
    ids_BT = rng.integers(0, model.config.vocab_size, (4, n_positions))
    full_BTV = np.asarray(model.forward(ids_BT), np.float32)
    program = Program.of(model)
    for split in range(1, n_positions + 1):
        counts: list[Any] = [[split, 0, 0, 0]] + [[1, 0, 0, 0]] * (n_positions - split)
        _check_passes(program, ids_BT, full_BTV, counts, bound, f"prompt split at {split}")
    for mix in range(3):
        left = np.full(4, n_positions)
        counts = []
        while left.any():
            counts.append(np.minimum(left, rng.integers(0, 4, 4)))
            left -= counts[-1]
        _check_passes(program, ids_BT, full_BTV, counts, bound, f"batch mix {mix}")


def _check_passes(
    program: Program, ids: np.ndarray, full: np.ndarray, counts: Sequence[Any], bound: float, what: str
) -> None:
    """Run passes with so many new tokens of each of four sequences, in an order and slots of no special kind."""
    slots = {row: slot for slot, row in enumerate((2, 0, 3, 1))}
    cache = KVCache.create(program.config.layers, slots=4, capacity=ids.shape[1])
    for _ in slots:
        cache.claim()
    done = dict.fromkeys(slots, 0)
    for number, new in enumerate(counts):
        rows = [row for row in slots if new[row]]
        if not rows:
            continue
        pieces = [(row, slice(done[row], done[row] + int(new[row]))) for row in rows]
        packed = np.concatenate([ids[piece] for piece in pieces])
        expected = np.concatenate([full[piece] for piece in pieces])
        every = number % 2 == 0
        table = np.array([slots[row] for row in rows]), np.array([new[row] for row in rows])
        got = program.run(packed, *table, cache, every=every)
        ends = np.cumsum(table[1]) - 1
        assert_same_logits(got, expected if every else expected[ends], bound, f"{what}, pass {number}")
        for row in rows:
            done[row] += int(new[row])
        assert all(cache.lengths_C[slots[row]] == done[row] for row in slots), f"{what}: lengths {cache.lengths_C}"
