"""Arguments for `minislm.ops.half`."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]

SIZES = ((1, 1, 1), (5, 7, 3), (13, 2, 17), (0, 3, 4))  # rows, inputs, outputs


def half_product(rng: np.random.Generator) -> Cases:
    """Draw rows and a 16-bit matrix, also transposed in memory."""
    return [((rng.normal(size=(n, i)), w_OI), {}) for n, i, o in SIZES for w_OI in _matrices(rng, o, i)]


def half_product_t(rng: np.random.Generator) -> Cases:
    """Draw output gradients and a 16-bit matrix, also transposed in memory."""
    return [((rng.normal(size=(n, o)), w_OI), {}) for n, i, o in SIZES for w_OI in _matrices(rng, o, i)]


def _matrices(rng: np.random.Generator, n_outputs: int, n_inputs: int) -> list[np.ndarray]:
    return [
        rng.normal(size=(n_outputs, n_inputs)).astype(np.float16),
        rng.normal(size=(n_inputs, n_outputs)).astype(ml_dtypes.bfloat16).T,
    ]
