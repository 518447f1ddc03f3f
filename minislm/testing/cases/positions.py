"""Arguments for `minislm.ops.positions`."""

from __future__ import annotations

from typing import Any

import numpy as np

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]


def sinusoidal_positions(rng: np.random.Generator) -> Cases:
    """Draw numbers of positions and widths, odd ones among them."""
    return [((n, int(rng.integers(1, 20))), {"interleaved": n % 2 == 1}) for n in (0, 1, 7, 50, 51)]
