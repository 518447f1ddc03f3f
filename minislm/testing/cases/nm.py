"""Arguments for `minislm.ops.nm`: odd sizes, empty rows, full rows, float and quantized values."""

from __future__ import annotations

from typing import Any

import numpy as np

from minislm.ops.nm import pack_nm
from minislm.testing.cases.bitmap import stored_values

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]

# Rows, inputs, outputs, n, m, the format of the values. Inputs end inside a group or on one.
SIZES = (
    (1, 1, 1, 2, 4, None),
    (5, 7, 3, 2, 4, None),
    (3, 32, 17, 2, 4, None),
    (2, 30, 4, 4, 8, None),
    (2, 11, 3, 3, 5, None),
    (1, 40, 2, 1, 16, None),
    (2, 64, 9, 2, 4, "int8"),
    (4, 70, 6, 2, 4, "int4-32"),
    (2, 67, 4, 1, 4, "nf4-32"),
    (2, 33, 5, 1, 4, "uint3-64"),
    (0, 3, 2, 1, 2, None),
)


def nm_product(rng: np.random.Generator) -> Cases:
    """Draw rows and sparse matrices."""
    return [((rng.normal(size=(n, i)), *stored), options) for n, i, _, stored, options in _matrices(rng)]


def nm_product_t(rng: np.random.Generator) -> Cases:
    """Draw output gradients and sparse matrices."""
    return [
        ((rng.normal(size=(n, o)), *stored), {**options, "n_inputs": i}) for n, i, o, stored, options in _matrices(rng)
    ]


def nm_rows(rng: np.random.Generator) -> Cases:
    """Draw row numbers, with repetitions, and sparse matrices."""
    return [
        ((rng.integers(0, o, n + 2), *stored), {**options, "n_inputs": i})
        for n, i, o, stored, options in _matrices(rng)
    ]


def random_nm_mask(rng: np.random.Generator, n_outputs: int, n_inputs: int, n: int, m: int) -> np.ndarray:
    """Draw a mask that keeps at most n of every m: in the first row no fewer, in the last of several rows nothing.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    n_outputs, n_inputs : int
        Rows and columns.
    n, m : int
        At most `n` of every `m` columns are kept, sometimes fewer.

    Returns
    -------
    ndarray, (n_outputs, n_inputs), bool
        True where an entry is kept.
    """
    scores = rng.random((n_outputs, -(-n_inputs // m) * m))
    scores[:, n_inputs:] = 1.0  # filled up: last in its group
    order = scores.reshape(n_outputs, -1, m).argsort(axis=2).argsort(axis=2)
    kept = (order < n) & (rng.random(order.shape) < 0.8)
    kept[:1] = order[:1] < n
    mask_OI: np.ndarray = kept.reshape(n_outputs, -1)[:, :n_inputs]
    mask_OI[1:][-1:] = False
    return mask_OI


def _matrices(rng: np.random.Generator) -> list[tuple[int, int, int, tuple[np.ndarray, ...], dict[str, Any]]]:
    """Draw (rows, inputs, outputs, arrays, options) for each of `SIZES`."""
    drawn = []
    for rows, i, o, n, m, name in SIZES:
        values_OU, places_OP = pack_nm(rng.normal(size=(o, i)), random_nm_mask(rng, o, i, n, m), n=n, m=m)
        values, scales, options = stored_values(values_OU, name)
        drawn.append((rows, i, o, (values, places_OP, *scales), {**options, "n": n, "m": m}))
    return drawn
