"""Arguments for `minislm.ops.bitmap`: odd sizes, empty rows, full rows, float and quantized values."""

from __future__ import annotations

from typing import Any

import numpy as np

from minislm.ops.bitmap import pack_bitmap
from minislm.weights.quantized import Quantized

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


def bitmap_product(rng: np.random.Generator) -> Cases:
    """Draw rows and sparse matrices."""
    return [((rng.normal(size=(n, i)), *stored), options) for n, i, _, stored, options in _matrices(rng)]


def bitmap_product_t(rng: np.random.Generator) -> Cases:
    """Draw output gradients and sparse matrices."""
    return [
        ((rng.normal(size=(n, o)), *stored), {**options, "n_inputs": i}) for n, i, o, stored, options in _matrices(rng)
    ]


def bitmap_rows(rng: np.random.Generator) -> Cases:
    """Draw row numbers, with repetitions, and sparse matrices."""
    return [
        ((rng.integers(0, o, n + 2), *stored), {**options, "n_inputs": i})
        for n, i, o, stored, options in _matrices(rng)
    ]


def random_mask(rng: np.random.Generator, n_outputs: int, n_inputs: int) -> np.ndarray:
    """Draw a mask whose first row is full and whose last row, if another, is empty.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    n_outputs, n_inputs : int
        Rows and columns.

    Returns
    -------
    ndarray, (n_outputs, n_inputs), bool
        True where an entry is kept.
    """
    mask_OI = rng.random((n_outputs, n_inputs)) < 0.4
    mask_OI[-1] = False
    mask_OI[0] = True
    return mask_OI


def stored_values(
    values: np.ndarray, format_name: str | None
) -> tuple[np.ndarray, tuple[np.ndarray, ...], dict[str, Any]]:
    """Store rows of values as floats or in a format.

    Parameters
    ----------
    values : ndarray, (rows, values)
        The values.
    format_name : str or None
        Their format; None: as they are.

    Returns
    -------
    values : ndarray
        Floats or packed codes.
    scales : tuple of ndarray
        Scales and zeros, as far as there are any.
    options : dict
        The ``format`` option, where there is one.
    """
    if format_name is None:
        return values, (), {}
    stored = Quantized.nearest(values, format_name)
    return stored.codes, stored.stored[1:], {"format": stored.format}


def _matrices(rng: np.random.Generator) -> list[tuple[int, int, int, tuple[np.ndarray, ...], dict[str, Any]]]:
    """Draw (rows, inputs, outputs, arrays, options) for each of `SIZES`."""
    drawn = []
    for n, i, o, name in SIZES:
        mask_OP, stream, starts = pack_bitmap(rng.normal(size=(o, i)), random_mask(rng, o, i))
        values, scales, options = stored_values(stream[None], name)
        drawn.append((n, i, o, (mask_OP, values if name else stream, starts, *scales), options))
    return drawn
