"""Arguments for `minislm.ops.dropout`."""

from __future__ import annotations

from typing import Any

import numpy as np

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]


def dropout(rng: np.random.Generator) -> Cases:
    """Draw arrays, rates and keys."""
    return [
        ((rng.normal(size=shape),), {"rate": rate, "key": tuple(int(part) for part in rng.integers(0, 2**32, 4))})
        for shape, rate in (((1,), 0.5), ((5, 7), 0.25), ((3, 4, 9), 0.9), ((4, 4), 0.0), ((0, 3), 0.1))
    ]
