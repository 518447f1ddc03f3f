"""Arguments for `minislm.ops.norm`."""

from __future__ import annotations

from typing import Any

import numpy as np

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]

SIZES = ((1, 2), (7, 5), (3, 64), (0, 4))  # rows, width


def layer_norm(rng: np.random.Generator) -> Cases:
    """Draw rows off centre, scales and shifts."""
    return [
        ((1.5 + 2.0 * rng.normal(size=(n, d)), rng.normal(size=d), rng.normal(size=d)), {"eps": eps})
        for (n, d), eps in zip(SIZES, (1e-1, 1e-5, 1e-6, 1e-5), strict=True)
    ]


def rms_norm(rng: np.random.Generator) -> Cases:
    """Draw rows off centre and scales."""
    return [
        ((1.5 + 2.0 * rng.normal(size=(n, d)), rng.normal(size=d)), {"eps": eps})
        for (n, d), eps in zip(SIZES, (1e-1, 1e-5, 1e-6, 1e-5), strict=True)
    ]
