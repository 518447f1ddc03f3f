"""Arguments for `minislm.ops.masked_panels`: every width and group, all, some and none of the entries stored."""

from __future__ import annotations

from typing import Any

import numpy as np

from minislm.ops.masked_panels import MaskedLayout, pack_masked_panels
from minislm.ops.panels import pack_groups, round_activations
from minislm.ops.quantized import ACTIVATION_GROUPS
from minislm.testing.cases.panels import _biases, _matrices

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]

# Rows, inputs, outputs of matrices of floats: around the edges of panels, blocks and what a cache holds of a panel.
FLOATS = ((1, 1, 1), (1, 7, 3), (5, 33, 17), (2, 64, 40), (1, 300, 33), (3, 257, 16), (0, 3, 2), (1, 5, 32))


def masked_panel_product(rng: np.random.Generator) -> Cases:
    """Draw rounded rows and sparse matrices of codes, half of them with a bias."""
    cases: Cases = []
    for x_NI, layout, groups, format, o in _codes(rng):
        for group in sorted(set(ACTIVATION_GROUPS.values())):
            rounded_NP = round_activations(x_NI, group=group)
            options = {"format": format, "group": group, "n_inputs": x_NI.shape[1], "n_outputs": o}
            cases.append(((rounded_NP, *layout, *groups, *_biases(rng, len(cases), (0, *groups), o)), options))
    return cases


def decoded_masked_panel_product(rng: np.random.Generator) -> Cases:
    """Draw rows and sparse matrices, of floats and of codes, half of them with a bias."""
    cases: Cases = []
    for n, i, o in FLOATS:
        bias = (None, None, rng.normal(size=o).astype(np.float32)) if len(cases) % 2 else ()
        layout = _layout(rng.normal(size=(o, i)).astype(np.float32), _kept(rng, o, i))
        cases.append(((rng.normal(size=(n, i)).astype(np.float32), *layout, *bias), {"n_outputs": o}))
    for x_NI, layout, groups, format, o in _codes(rng):
        bias = _biases(rng, len(cases), (0, *groups), o)
        cases.append(((x_NI, *layout, *groups, *bias), {"format": format, "n_outputs": o}))
    return cases


def _kept(rng: np.random.Generator, o: int, i: int) -> np.ndarray:
    """Draw which entries are stored: of the first output all, of the last of several none, of the others some."""
    kept_OI: np.ndarray = rng.random((o, i)) < rng.uniform(0.2, 0.8)
    kept_OI[:1] = True
    kept_OI[1:][-1:] = False
    return kept_OI


def _layout(entries_OI: np.ndarray, kept_OI: np.ndarray, bits: int | None = None) -> MaskedLayout:
    """Lay some entries of a matrix out."""
    n_outputs, n_inputs = entries_OI.shape
    return pack_masked_panels(
        lambda rows: (kept_OI[rows], entries_OI[rows]), n_outputs, n_inputs, entries_OI.dtype, bits
    )


def _codes(rng: np.random.Generator) -> list[tuple[Any, ...]]:
    """Draw (x, layout, scales and zeros in groups, format, outputs)."""
    return [
        (
            rng.normal(size=(n, i)).astype(np.float32),
            _layout(format.unpack(codes, i), _kept(rng, o, i), format.bits),
            tuple(map(pack_groups, groups)),
            format,
            o,
        )
        for n, i, o, (codes, *groups), format in _matrices(rng)
    ]
