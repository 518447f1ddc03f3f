"""Arguments for `minislm.ops.gate`."""

from __future__ import annotations

from typing import Any

import numpy as np

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]

SHAPES = ((1,), (5, 7), (2, 3, 11), (0, 3))


def silu_gate(rng: np.random.Generator) -> Cases:
    """Draw gates from both sides of zero, and what they let through."""
    return [((2.5 * rng.normal(size=shape), rng.normal(size=shape)), {}) for shape in SHAPES]


gelu_gate = gelu_tanh_gate = silu_gate
