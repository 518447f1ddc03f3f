"""Arguments for `minislm.ops.csr`: odd sizes, empty rows, full rows, float and quantized values."""

from __future__ import annotations

from typing import Any

import numpy as np

from minislm.ops.csr import pack_csr
from minislm.testing.cases.bitmap import random_mask, stored_values

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]

# Rows, inputs, outputs, the format of the values.
SIZES = (
    (1, 1, 1, None),
    (5, 7, 3, None),
    (3, 33, 17, None),
    (2, 64, 9, "int8-32"),
    (4, 21, 6, "int4-32"),
    (2, 67, 4, "nf4-32"),
    (1, 70, 5, "uint3-64"),
    (2, 9, 4, "int5"),
    (0, 3, 2, None),
)


def csr_product(rng: np.random.Generator) -> Cases:
    """Draw rows and sparse matrices."""
    return [((rng.normal(size=(n, i)), *stored), options) for n, i, _, stored, options in _matrices(rng)]


def csr_product_t(rng: np.random.Generator) -> Cases:
    """Draw output gradients and sparse matrices."""
    return [
        ((rng.normal(size=(n, o)), *stored), {**options, "n_inputs": i}) for n, i, o, stored, options in _matrices(rng)
    ]


def csr_rows(rng: np.random.Generator) -> Cases:
    """Draw row numbers, with repetitions, and sparse matrices."""
    return [
        ((rng.integers(0, o, n + 2), *stored), {**options, "n_inputs": i})
        for n, i, o, stored, options in _matrices(rng)
    ]


def _matrices(rng: np.random.Generator) -> list[tuple[int, int, int, tuple[np.ndarray, ...], dict[str, Any]]]:
    """Draw (rows, inputs, outputs, arrays, options) for each of `SIZES`."""
    drawn = []
    for n, i, o, name in SIZES:
        stream, columns, starts = pack_csr(rng.normal(size=(o, i)), random_mask(rng, o, i))
        values, scales, options = stored_values(stream[None], name)
        drawn.append((n, i, o, (values if name else stream, columns, starts, *scales), options))
    return drawn
