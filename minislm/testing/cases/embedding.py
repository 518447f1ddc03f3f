"""Arguments for `minislm.ops.embedding`."""

from __future__ import annotations

from typing import Any

import numpy as np

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]


def embedding(rng: np.random.Generator) -> Cases:
    """Draw ids, repeated ones among them, and a table."""
    sizes = ((1, 1, 1), (23, 5, 7), (3, 11, 4), (0, 3, 2))  # ids, rows, width
    return [((rng.integers(0, v, n), rng.normal(size=(v, d))), {}) for n, v, d in sizes]
