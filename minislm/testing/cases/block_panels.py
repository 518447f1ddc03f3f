"""Arguments for `minislm.ops.block_panels`: rows that end inside groups, blocks and panels."""

from __future__ import annotations

from typing import Any

import numpy as np

from minislm.ops.block_panels import CODES, pack_block_panels
from minislm.ops.blocks import BLOCK_FORMATS
from minislm.ops.panels import round_activations
from minislm.testing.cases.blocks import random_blocks

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]

# Rows, inputs, outputs.
SIZES = ((1, 1, 1), (3, 17, 5), (0, 32, 2), (2, 256, 16), (7, 300, 35), (13, 530, 18), (1, 511, 49))


def block_panel_product(rng: np.random.Generator) -> Cases:
    """Draw rounded rows and matrices in panels, half of them with a bias."""
    return [
        ((round_activations(x_NI, group=32), *arrays), {**options, "n_inputs": x_NI.shape[1]})
        for (x_NI, *arrays), options in decoded_block_panel_product(rng)
    ]


def decoded_block_panel_product(rng: np.random.Generator) -> Cases:
    """Draw rows and matrices in panels, half of them with a bias."""
    cases: Cases = []
    for format in (BLOCK_FORMATS[name] for name in CODES):
        for n, i, o in SIZES:
            arrays = pack_block_panels(random_blocks(rng, format, o, i), n_inputs=i, format=format)
            x_NI = rng.normal(size=(n, i)).astype(np.float32)
            bias = rng.normal(size=o).astype(np.float32) if len(cases) % 2 else None
            cases.append(((x_NI, *arrays, bias), {"format": format, "n_outputs": o}))
    return cases
