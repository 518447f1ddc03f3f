"""Arguments for `minislm.ops.loss`."""

from __future__ import annotations

from typing import Any

import numpy as np

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]

SIZES = ((1, 2), (7, 5), (3, 65))  # rows, classes


def cross_entropy(rng: np.random.Generator) -> Cases:
    """Draw logits and targets, some of them ignored, with and without smoothing."""
    cases: Cases = [((3.0 * rng.normal(size=(n, v)), rng.integers(0, v, n)), {}) for n, v in SIZES]
    some = np.array([3, -100, 0, 1, -100, 2])
    return [
        *cases,
        ((rng.normal(size=(6, 4)), some), {"label_smoothing": 0.1}),
        ((rng.normal(size=(6, 4)), np.where(some < 0, 3, some)), {"ignore": 3}),
        ((rng.normal(size=(2, 3)), np.array([-100, -100])), {}),
        ((rng.normal(size=(0, 3)), np.array([], np.int64)), {}),
    ]


def kl_divergence(rng: np.random.Generator) -> Cases:
    """Draw logits of student and teacher, in both directions, at several temperatures."""
    keep = np.array([True, False, True])
    choices: list[tuple[tuple[int, int], dict[str, Any]]] = [
        (SIZES[0], {}),
        (SIZES[1], {"temperature": 3.0}),
        (SIZES[2], {"reverse": True}),
        ((3, 4), {"temperature": 0.5, "reverse": True, "keep_N": keep}),
        ((3, 4), {"temperature": 2.0, "keep_N": keep}),
        ((0, 4), {}),
    ]
    return [((2.0 * rng.normal(size=size), 2.0 * rng.normal(size=size)), options) for size, options in choices]


def mean_square(rng: np.random.Generator) -> Cases:
    """Draw two arrays of one shape."""
    return [((rng.normal(size=shape), rng.normal(size=shape)), {}) for shape in ((1,), (5, 7), (2, 3, 4), (0, 3))]


def cosine_distance(rng: np.random.Generator) -> Cases:
    """Draw rows and their targets."""
    return [((rng.normal(size=(n, d)), rng.normal(size=(n, d))), {}) for n, d in ((1, 2), (5, 7), (3, 33), (0, 4))]
