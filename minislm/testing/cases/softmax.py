"""Arguments for `minislm.ops.softmax`."""

from __future__ import annotations

from typing import Any

import numpy as np

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]


def softmax(rng: np.random.Generator) -> Cases:
    """Draw rows of different widths and spreads."""
    return [
        ((spread * rng.normal(size=(n, v)),), {})
        for n, v, spread in ((1, 1, 1.0), (5, 7, 3.0), (3, 65, 0.5), (0, 4, 1.0))
    ]
