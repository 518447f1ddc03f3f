"""Tokens a second of sparse models beside the dense storage of the same values, one token at a time.

    python tests/benchmarks/bench_sparse.py

Blocks of decoders of random weights are pruned and quantized. All storages of a decoder take turns for nine rounds;
medians are shown, and the middle half of the rounds' ratios to the dense storage. The error is that of the logits of
one text against the same matrices multiplied in float32, normalised mean square.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
from bench_replays import DECODERS

from minislm.compression.prune import Prune
from minislm.compression.quantize import Quantize
from minislm.inference.cache import KVCache
from minislm.inference.program import Program
from minislm.models import model_class
from minislm.models.base import Model
from minislm.weights.dense import Dense

ROUNDS, NEW_TOKENS, TEXT = 9, 100, 64
# The dense storage, and what is held against it.
STORED: dict[str, tuple[Any, ...]] = {
    "float32": (),
    "half in float32": (Prune(sparsity=0.5),),
    "2:4 in float32": (Prune(pattern="2:4"),),
    "80 % zeros in float32": (Prune(sparsity=0.8),),
    "int8": (Quantize("int8"),),
    "2:4 in int8": (Prune(pattern="2:4"), Quantize("int8")),
    "int4-32": (Quantize("int4-32"),),
    "2:4 in int4-32": (Prune(pattern="2:4"), Quantize("int4-32")),
    "half in int4-32": (Prune(sparsity=0.5), Quantize("int4-32")),
}


class Writer:
    """A model that writes."""

    def __init__(self, model: Model) -> None:
        self.program, self.n_bytes = Program.of(model), sum(weight.nbytes for weight in model.weights().values())
        plain = {path: Dense(weight.dense()) for path, weight in model.weights().items()}
        logits, expected = self.read(self.program, model), self.read(Program.of(model.replaced(plain)), model)
        self.error = float(np.mean((logits - expected) ** 2) / np.var(expected))
        self.cache = KVCache.create(model.config.layers, 1, model.config.context)
        self.slots, self.seconds = np.array([self.cache.claim()]), list[float]()

    @staticmethod
    def read(program: Program, model: Model) -> np.ndarray:
        """Return the logits of a text."""
        cache = KVCache.create(model.config.layers, 1, TEXT)
        ids = np.random.default_rng(0).integers(0, model.config.vocab_size, TEXT)
        return program.run(ids, np.array([cache.claim()]), np.array([TEXT]), cache, every=True)

    def write(self) -> None:
        """Write some tokens greedily, and take the time."""
        self.cache.truncate(0, 0)
        ids, counts = np.array([1]), np.ones(1, np.int64)
        start = time.perf_counter()
        for _ in range(NEW_TOKENS):
            ids = self.program.run(ids, self.slots, counts, self.cache).argmax(axis=1)
        self.seconds.append((time.perf_counter() - start) / NEW_TOKENS)


def main() -> None:
    """Print a table."""
    print(f"{'':40} {'tokens/s':>9} {'of dense':>8} {'':13} {'bytes of dense':>14} {'error':>9}")
    for name, config in DECODERS.items():
        model = model_class(config.type)[0].create(config, seed=1)
        writers: dict[str, Writer] = {}
        for stored, methods in STORED.items():
            small = model
            for method in methods:
                small = method.run(small, where="blocks.*")
            writers[stored] = Writer(small)
        for _ in range(ROUNDS + 2):  # the first two write the pass down
            for writer in writers.values():
                writer.write()
        dense = writers["float32"]
        for stored, writer in writers.items():
            if len(STORED[stored]) <= 1 and not any(isinstance(method, Prune) for method in STORED[stored]):
                dense = writer
            times = zip(dense.seconds[2:], writer.seconds[2:], strict=True)
            ratios = sorted(theirs / ours for theirs, ours in times)
            spread = f"({ratios[len(ratios) // 4]:.2f}-{ratios[-1 - len(ratios) // 4]:.2f})"
            print(
                f"{name + ', ' + stored:40} {1 / statistics.median(writer.seconds[2:]):9.0f} "
                f"{statistics.median(ratios):8.2f} {spread:13} {writer.n_bytes / dense.n_bytes:14.2f} "
                f"{writer.error:9.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
