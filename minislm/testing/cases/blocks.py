"""Arguments for `minislm.ops.blocks`: every format, rows that end inside a block, zero and negative scales."""

from __future__ import annotations

from typing import Any

import numpy as np

from minislm.ops.blocks import BLOCK_FORMATS, BlockFormat

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]

# Rows, inputs, outputs.
SIZES = ((1, 1, 1), (3, 33, 5), (0, 32, 2), (2, 256, 4), (4, 300, 3))


def block_product(rng: np.random.Generator) -> Cases:
    """Draw rows and matrices in blocks."""
    return [
        ((rng.normal(size=(n, i)), random_blocks(rng, format, o, i)), {"format": format})
        for format in BLOCK_FORMATS.values()
        for n, i, o in SIZES
    ]


def block_product_t(rng: np.random.Generator) -> Cases:
    """Draw output gradients and matrices in blocks."""
    return [
        ((rng.normal(size=(n, o)), random_blocks(rng, format, o, i)), {"format": format, "n_inputs": i})
        for format in BLOCK_FORMATS.values()
        for n, i, o in SIZES
    ]


def block_rows(rng: np.random.Generator) -> Cases:
    """Draw row numbers, with repetitions, and matrices in blocks."""
    return [
        ((rng.integers(0, o, n + 2), random_blocks(rng, format, o, i)), {"format": format, "n_inputs": i})
        for format in BLOCK_FORMATS.values()
        for n, i, o in SIZES
    ]


def random_blocks(rng: np.random.Generator, format: BlockFormat, n_outputs: int, n_inputs: int) -> np.ndarray:
    """Draw any bytes at all for the codes, and moderate scales, the last one zero where there are several."""
    blocks_OP = rng.integers(0, 256, (n_outputs, format.row_bytes(n_inputs))).astype(np.uint8)
    records = blocks_OP.view(format.record)
    for name in ("scale", "least"):
        if name in (format.record.names or ()):
            scales = rng.uniform(0.005, 0.1, records.shape) * rng.choice([-1.0, 1.0], records.shape)
            scales.flat[1:][-1:] = 0.0
            records[name] = scales
    return blocks_OP
