"""Arguments for `minislm.ops.linear`."""

from __future__ import annotations

from typing import Any

import numpy as np

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]

SIZES = ((1, 1, 1), (5, 7, 3), (13, 2, 17), (0, 3, 4))  # rows, inputs, outputs


def linear(rng: np.random.Generator) -> Cases:
    """Draw rows, a matrix, and a bias or none."""
    cases: Cases = [((rng.normal(size=(n, i)), rng.normal(size=(o, i)), rng.normal(size=o)), {}) for n, i, o in SIZES]
    return [*cases, ((rng.normal(size=(4, 6)), rng.normal(size=(6, 5)).T), {})]


def linear_dx(rng: np.random.Generator) -> Cases:
    """Draw output gradients and a matrix."""
    return [((rng.normal(size=(n, o)), rng.normal(size=(o, i))), {}) for n, i, o in SIZES]


def linear_dw(rng: np.random.Generator) -> Cases:
    """Draw output gradients and rows."""
    return [((rng.normal(size=(n, o)), rng.normal(size=(n, i))), {}) for n, i, o in SIZES]


def add(rng: np.random.Generator) -> Cases:
    """Draw two arrays of one shape."""
    return [((rng.normal(size=shape), rng.normal(size=shape)), {}) for shape in ((1, 1), (5, 7), (0, 3))]


def add_bias(rng: np.random.Generator) -> Cases:
    """Draw rows and a vector."""
    return [((rng.normal(size=(n, o)), rng.normal(size=o)), {}) for n, _, o in SIZES]


def scale(rng: np.random.Generator) -> Cases:
    """Draw rows and a vector."""
    return [((rng.normal(size=(n, i)), rng.normal(size=i)), {}) for n, i, _ in SIZES]
