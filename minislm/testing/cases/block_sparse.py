"""Arguments for `minislm.ops.block_sparse`: odd numbers of inputs, panels without blocks, floats and codes."""

from __future__ import annotations

from typing import Any

import numpy as np

from minislm.ops import block_sparse as op
from minislm.ops.panels import round_activations
from minislm.ops.quantized import ACTIVATION_GROUPS
from minislm.testing.cases.bitmap import stored_values

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]

# Rows, inputs, panels, the format of the values.
SIZES = (
    (1, 32, 1, None),
    (5, 70, 3, None),
    (1, 7, 2, "int8"),
    (1, 600, 4, "int8-32"),
    (4, 129, 3, "int4-32"),
    (7, 64, 2, "uint3-64"),
    (14, 300, 5, "uint8"),
    (0, 33, 2, "int5"),
    (3, 100, 2, "nf4-32"),
    (1, 70, 2, "ternary"),
)


def block_sparse_product(rng: np.random.Generator) -> Cases:
    """Draw rows and matrices."""
    return [((rng.normal(size=(n, i)), *stored), options) for n, i, stored, options in _matrices(rng)]


def block_sparse_product_t(rng: np.random.Generator) -> Cases:
    """Draw output gradients and matrices."""
    return [
        ((rng.normal(size=(n, 16 * len(stored[0]))), *stored), {**options, "n_inputs": i})
        for n, i, stored, options in _matrices(rng)
    ]


def block_sparse_rows(rng: np.random.Generator) -> Cases:
    """Draw row numbers, with repetitions, and matrices."""
    return [
        ((rng.integers(0, 16 * len(stored[0]), n + 2), *stored), {**options, "n_inputs": i})
        for n, i, stored, options in _matrices(rng)
    ]


def block_sparse_panel_product(rng: np.random.Generator) -> Cases:
    """Draw rounded rows and matrices in panels, half of them with a bias."""
    cases: Cases = []
    for n, i, (blocks_CQ, codes, *groups), options in _matrices(rng):
        if not groups:
            continue
        zeros = groups[1] if len(groups) > 1 else None
        layout = op.pack_block_sparse_panels(blocks_CQ, codes, groups[0], zeros, format=options["format"])
        for group in sorted(set(ACTIVATION_GROUPS.values())):
            rounded_NP = round_activations(rng.normal(size=(n, i)).astype(np.float32), group=group)
            o = 16 * len(blocks_CQ)
            bias = (rng.normal(size=o).astype(np.float32),) if len(cases) % 2 else ()
            cases.append(((rounded_NP, *layout, *bias), {**options, "n_inputs": i, "n_outputs": o}))
    return cases


def random_blocks_mask(rng: np.random.Generator, n_outputs: int, n_inputs: int) -> np.ndarray:
    """Draw a mask that keeps whole blocks: of the first panel all, of the last of several none.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    n_outputs, n_inputs : int
        Rows, a multiple of 16, and columns.

    Returns
    -------
    ndarray, (n_outputs, n_inputs), bool
        True where an entry is kept.
    """
    kept: np.ndarray = rng.random((n_outputs // 16, -(-n_inputs // 32))) < 0.4
    kept[:1] = True
    kept[1:][-1:] = False
    mask_OI: np.ndarray = np.repeat(np.repeat(kept, 16, axis=0), 32, axis=1)[:, :n_inputs]
    return mask_OI


def _matrices(rng: np.random.Generator) -> list[tuple[int, int, tuple[np.ndarray, ...], dict[str, Any]]]:
    """Draw (rows, inputs, arrays, options) for each of `SIZES`."""
    drawn = []
    for n, i, panels, name in SIZES:
        w_OI, mask_OI = rng.normal(size=(16 * panels, i)), random_blocks_mask(rng, 16 * panels, i)
        blocks_CQ, stored = op.pack_block_sparse(w_OI, mask_OI)
        values, scales, options = stored_values(stored, name)
        drawn.append((n, i, (blocks_CQ, values, *scales), options))
    return drawn
