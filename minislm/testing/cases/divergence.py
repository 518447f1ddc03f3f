"""Arguments for `minislm.ops.divergence`."""

from __future__ import annotations

from typing import Any

import numpy as np

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]


def relative_entropy(rng: np.random.Generator) -> Cases:
    """Draw distributions and their targets, some of which leave classes out."""
    keep = np.array([True, False, True, True])
    cases: Cases = []
    for n_rows, n_classes, keep_N in ((1, 2, None), (5, 7, None), (4, 9, keep), (0, 3, None)):
        p_NS, target_NS = np.exp(rng.normal(size=(2, n_rows, n_classes)))
        target_NS[1::2, 0] = 0.0
        p_NS, target_NS = (array / array.sum(axis=1, keepdims=True) for array in (p_NS, target_NS))
        cases.append(((p_NS, target_NS), {"keep_N": keep_N}))
    return cases
