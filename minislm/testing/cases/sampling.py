"""Arguments for `minislm.ops.sampling`."""

from __future__ import annotations

from typing import Any

import numpy as np

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]

OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0.7, "top_k": 5},
    {"temperature": 1.3, "top_p": 0.9},
    {"min_p": 0.1},
    {"temperature": 0.8, "top_k": 40, "top_p": 0.6, "min_p": 0.02},
    {"temperature": 1e-40},
)


def token_probabilities(rng: np.random.Generator) -> Cases:
    """Draw logits of both signs, some of them equal and some -inf, and how many tokens are left."""
    cases: Cases = [((3.0 * rng.normal(size=(n, v)),), options) for options in OPTIONS for n, v in ((1, 2), (5, 67))]
    equal = np.repeat(rng.normal(size=(3, 11)), 7, axis=1)
    equal[1, :50] = -np.inf
    equal[2, ::5] = -0.0
    equal[2, 1::5] = 0.0
    return [
        *cases,
        *(((rng.permuted(equal, axis=1),), options) for options in OPTIONS),
        ((np.where(np.arange(4)[:, None] < 2, -np.inf, rng.normal(size=(4, 3))),), {"top_k": 2}),
        ((np.zeros((0, 3)),), {}),
    ]
