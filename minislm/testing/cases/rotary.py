"""Arguments for `minislm.ops.rotary`."""

from __future__ import annotations

from typing import Any

import numpy as np

from minislm.layers.rotary import plain

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]


def rotary(rng: np.random.Generator) -> Cases:
    """Draw heads at positions in any order, with both pairings, whole and partial."""
    return [
        ((rng.normal(size=(n, h, k)), rng.integers(0, 5000, n), tuple(f_F.tolist())), options)
        for n, h, k, f_F, options in (
            (1, 1, 2, plain(10000.0, 2), {}),
            (7, 3, 8, plain(10000.0, 8), {}),
            (5, 2, 6, plain(500.0, 6), {"interleaved": True}),
            (4, 1, 7, plain(10000.0, 4), {"factor": 1.25}),
            (9, 2, 10, rng.uniform(0, 1, 3), {"interleaved": True, "factor": 0.5}),
            (3, 2, 5, np.zeros(0), {}),
            (0, 2, 4, plain(10000.0, 4), {}),
        )
    ]
