"""Single layers as engines: chains of square products in a Program, in or out of cache, in every kind of storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minislm.benchmark.engine import Engine, Facts
from minislm.benchmark.own import own_facts
from minislm.inference.program import Program
from minislm.models.decoder import DecoderConfig
from minislm.weights.base import Weight
from minislm.weights.dense import Dense
from minislm.weights.product import Product
from minislm.weights.quantized import Quantized
from minislm.weights.sparse import Sparse

ROWS_COMPARED = 8
Make = Callable[[np.ndarray, np.random.Generator], Weight]


def _int8(w_OI: np.ndarray) -> Quantized:
    return Quantized.nearest(w_OI, "int8", "int8-row")


def _factors(w_OI: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw factors of half the rank at which they would hold as many numbers as the matrix."""
    n_outputs, n_inputs = w_OI.shape
    rank = n_outputs * n_inputs // (2 * (n_outputs + n_inputs))
    left = rng.standard_normal((n_outputs, rank), np.float32) / np.float32(rank**0.5)
    return left, w_OI[:rank].copy()


def _two_of_four(w_OI: np.ndarray, rng: np.random.Generator) -> Weight:
    order = rng.random((len(w_OI), w_OI.shape[1] // 4, 4), np.float32).argsort(axis=2)
    return Sparse.from_dense(w_OI, (order < 2).reshape(w_OI.shape), "2:4", "int8").with_activations("int8")


def _some_blocks(w_OI: np.ndarray, rng: np.random.Generator) -> Weight:
    """Keep a fifth of the blocks."""
    kept = rng.random((len(w_OI) // 16, w_OI.shape[1] // 32)) < 0.2
    mask_OI = np.repeat(np.repeat(kept, 16, axis=0), 32, axis=1)
    return Sparse.from_dense(w_OI, mask_OI, "16x32", "int8").with_activations("int8")


STORED: dict[str, Make] = {
    "float32": lambda w_OI, rng: Dense(w_OI),
    "int8": lambda w_OI, rng: _int8(w_OI),
    "int4-32": lambda w_OI, rng: Quantized.nearest(w_OI, "int4-32", "int8"),
    "nf4-32": lambda w_OI, rng: Quantized.nearest(w_OI, "nf4-32", "int8"),
    "ternary": lambda w_OI, rng: Quantized.nearest(w_OI, "ternary", "int8"),
    "low rank": lambda w_OI, rng: Product(*map(Dense, _factors(w_OI, rng))),
    "low rank int8": lambda w_OI, rng: Product(*(_int8(factor) for factor in _factors(w_OI, rng))),
    "2:4 int8": _two_of_four,
    "blocks int8": _some_blocks,
}


class Chain(Engine):
    """Square products, one after the other.

    Parameters
    ----------
    stored : str
        One of `STORED`.
    width : int
        Rows and columns of each.
    n_layers : int
        How many; so many that they do not fit into a cache, if they are to come from memory.
    """

    def __init__(self, stored: str, width: int, n_layers: int) -> None:
        rng = np.random.default_rng(0)
        config = DecoderConfig.uniform(vocab_size=1024, d_model=width, context=1024, n_layers=1, n_heads=1)
        self.stored, self.program = stored, Program(config)
        self.table = Dense(rng.standard_normal((1024, width), np.float32))
        slot = self.program.rows(self.table, self.program.ids)
        self.weights = []
        for _ in range(n_layers):
            w_OI = rng.standard_normal((width, width), np.float32) / np.float32(width**0.5)
            self.weights.append(STORED[stored](w_OI, rng))
            slot = self.weights[-1].lower(slot, self.program)
        self.program.result("y", slot)

    def facts(self) -> Facts:
        """Tell the storage and the bytes of the matrices."""
        return own_facts(self.program, self.stored, sum(weight.nbytes for weight in self.weights))

    def output(self) -> np.ndarray:
        """Return what comes out for a few rows."""
        return self._run(ROWS_COMPARED)

    def expected(self) -> np.ndarray:
        """Return what the same numbers give when NumPy multiplies them in float32."""
        x_NI = self.table.rows(np.arange(ROWS_COMPARED))
        for weight in self.weights:
            x_NI = x_NI @ weight.dense().T
        return x_NI

    def run(self, work: Mapping[str, Any]) -> None:
        """Multiply some rows by all matrices."""
        self._run(work["rows"])

    def _run(self, n_rows: int) -> np.ndarray:
        return self.program.run_all(np.arange(n_rows), np.array([n_rows]))["y"]
