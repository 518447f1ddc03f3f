"""Arguments for `minislm.ops.rotary`."""

from __future__ import annotations

from typing import Any

import numpy as np

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]


def rotary(rng: np.random.Generator) -> Cases:
    """Draw heads at positions in any order, with both pairings, whole and partial."""
    return [
        ((rng.normal(size=(n, h, k)), rng.integers(0, 5000, n)), options)
        for n, h, k, options in (
            (1, 1, 2, {}),
            (7, 3, 8, {}),
            (5, 2, 6, {"interleaved": True, "base": 500.0}),
            (4, 1, 7, {"width": 4}),
            (9, 2, 10, {"width": 6, "interleaved": True}),
            (3, 2, 5, {"width": 0}),
            (0, 2, 4, {}),
        )
    ]
