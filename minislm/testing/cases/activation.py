"""Arguments for `minislm.ops.activation`."""

from __future__ import annotations

from typing import Any

import numpy as np

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]

SHAPES = ((1,), (5, 7), (2, 3, 11), (0, 3))


def gelu(rng: np.random.Generator) -> Cases:
    """Draw numbers from both sides of zero, a few of them far out."""
    return [((2.5 * rng.normal(size=shape),), {}) for shape in SHAPES]


gelu_tanh = relu = silu = tanh = gelu
