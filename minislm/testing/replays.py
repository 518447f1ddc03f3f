"""The law of replays: a pass that is done again by a few calls gives what its steps give, bit for bit."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np

from minislm.dispatch import compiled
from minislm.inference import replays
from minislm.inference.cache import KVCache
from minislm.inference.program import Program
from minislm.models.base import Model
from minislm.models.encoder import Encoder
from minislm.models.transformer import Transformer

COUNTS = ((2, 1, 1), (1, 2, 1), (1, 1, 2))  # of three sequences: passes of one shape, whose tables differ
SLOTS = ((0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0))


def check_replays(model: Model, cache_dtype: str = "float32") -> None:
    """Check passes of equal shapes against the same passes step by step: every result, and all that a cache holds.

    Sequences come in every order, leave, others take their slots, and one fills the model's context.

    Parameters
    ----------
    model : Model
        Of any family, float32, with a context of at least 8.
    cache_dtype : str
        How keys and values are kept.

    Raises
    ------
    AssertionError
        Where a bit differs, or nothing was replayed although kernels are compiled.
    """
    with mock.patch.object(replays, "compiled", return_value=None):
        expected = _results(model, cache_dtype)
    again = replays.Replay.run
    with mock.patch.object(replays.Replay, "run", autospec=True, side_effect=again) as run:
        found = _results(model, cache_dtype)
    assert run.called or compiled() is None, "no pass was replayed"
    assert len(found) == len(expected)
    for number, (y, y_expected) in enumerate(zip(found, expected, strict=True)):
        assert y.shape == y_expected.shape
        assert y.tobytes() == y_expected.tobytes(), f"array {number} differs"


def _results(model: Any, cache_dtype: str) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    if isinstance(model, Encoder):
        program = Program.of(model)
        passes = (*COUNTS, (5, 1, 1), (1, 1, 5), (1, 5, 1))
        return [y for counts in passes for y in _read(program, counts, rng).values()]
    context = model.config.context
    crosses = isinstance(model, Transformer)
    cache = KVCache.create(model.config.layers, 3, context, source_capacity=4 * crosses, dtype=cache_dtype)
    for _ in range(3):
        cache.claim()
    if crosses:
        source = Program.of_source(model)
        for counts, slots in zip(COUNTS, SLOTS, strict=False):
            _read(source, counts, rng, cache=cache, slots_B=np.array(slots))
    program, found = Program.of(model), []

    def write(counts: Any, slots: Any, every: bool = False) -> None:
        ids = rng.integers(0, model.config.vocab_size, sum(counts))
        found.append(program.run(ids, np.array(slots), np.array(counts), cache, every=every))

    for every in (True, False):
        for counts, slots in zip(COUNTS, SLOTS, strict=False):
            write(counts, slots, every)
        for slot in range(3):
            cache.truncate(slot, slot)  # other sequences take their slots
    for slots in SLOTS:
        write((1, 1, 1), slots)
    for _ in range(context - int(cache.lengths_C[2])):
        write((1,), (2,))
    return [*found, *cache.arrays()]


def _read(program: Program, counts: Any, rng: np.random.Generator, **options: Any) -> dict[str, np.ndarray]:
    config: Any = program.config
    ids, types = (rng.integers(0, n, sum(counts)) for n in (config.vocab_size, getattr(config, "n_types", 0) or 1))
    return program.run_all(ids, np.array(counts), types, **options)
