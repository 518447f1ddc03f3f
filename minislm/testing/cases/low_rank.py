"""Arguments for `minislm.ops.low_rank`."""

from __future__ import annotations

from typing import Any

import numpy as np

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]

SIZES = ((1, 1, 1, 1), (5, 7, 2, 3), (13, 2, 5, 17), (3, 33, 8, 31), (0, 3, 2, 4))  # rows, inputs, rank, outputs


def low_rank_product(rng: np.random.Generator) -> Cases:
    """Draw rows and two factors; the rank may exceed a size."""
    return [((rng.normal(size=(n, i)), rng.normal(size=(r, i)), rng.normal(size=(o, r))), {}) for n, i, r, o in SIZES]
