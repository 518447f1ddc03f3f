"""Arguments for `minislm.ops.panels`: every width and group, and sizes around the edges of panels and blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

from minislm.ops import panels as op
from minislm.ops.formats import format_named
from minislm.ops.quantized import ACTIVATION_GROUPS
from minislm.testing.cases.quantized import SIZES, stored_matrix

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]

# Format, rows, inputs, outputs: besides those of every quantized matrix, more than a tile and more than a panel.
MORE = (
    ("int8", 8, 65, 33),
    ("uint8", 2, 95, 18),
    ("int4-32", 7, 130, 35),
    ("int4-128", 2, 200, 17),
    ("uint4-64", 1, 161, 16),
    ("uint8-32", 3, 64, 31),
    ("int7-64", 13, 70, 5),
    ("int8-32", 1, 32, 48),
    ("nf4-32", 1, 130, 35),
    ("nf4-128", 9, 193, 33),
    ("ternary-32", 7, 64, 31),
    ("ternary", 14, 130, 33),
)


def pack_panels(rng: np.random.Generator) -> Cases:
    """Draw packed codes."""
    return [((stored[0],), {"n_inputs": i, "format": format}) for _, i, _, stored, format in _matrices(rng)]


def round_activations(rng: np.random.Generator) -> Cases:
    """Draw rows of very different size, some of them zero, some with one large entry; given scales clip some."""
    cases: Cases = []
    for n_rows, n_inputs in ((1, 1), (4, 7), (3, 32), (5, 70), (2, 129), (0, 5)):
        x_NI = rng.normal(size=(n_rows, n_inputs)) * 10.0 ** rng.integers(-6, 7, (n_rows, 1))
        x_NI[1:2] = 0.0
        x_NI[2:3, -1] *= 1e4
        cases += [((x_NI,), {"group": group, "scale": None}) for group in (0, 32)]
        cases.append(((x_NI,), {"group": 0, "scale": float(rng.uniform(0.001, 0.1))}))
    return cases


def panel_product(rng: np.random.Generator) -> Cases:
    """Draw rounded rows and matrices in panels, half of them with a bias."""
    cases: Cases = []
    for x_NI, panels, format, o in _panels(rng):
        for group in sorted(set(ACTIVATION_GROUPS.values())):
            rounded_NP = op.round_activations(x_NI, group=group)
            options = {"format": format, "group": group, "n_inputs": x_NI.shape[1], "n_outputs": o}
            cases.append(((rounded_NP, *panels, *_biases(rng, len(cases), panels, o)), options))
    return cases


def decoded_panel_product(rng: np.random.Generator) -> Cases:
    """Draw rows and matrices in panels, half of them with a bias."""
    cases: Cases = []
    for x_NI, panels, format, o in _panels(rng):
        options = {"format": format, "n_outputs": o}
        cases.append(((x_NI, *panels, *_biases(rng, len(cases), panels, o)), options))
    return cases


def _panels(rng: np.random.Generator) -> list[tuple[Any, ...]]:
    """Draw (x, arrays of a matrix in panels, format, outputs)."""
    return [
        (
            rng.normal(size=(n, i)).astype(np.float32),
            (op.pack_panels(codes, n_inputs=i, format=format), op.pack_groups(scales), *map(op.pack_groups, zeros)),
            format,
            o,
        )
        for n, i, o, (codes, scales, *zeros), format in _matrices(rng)
    ]


def _biases(rng: np.random.Generator, number: int, panels: tuple[Any, ...], o: int) -> tuple[Any, ...]:
    """Draw a bias, in its place behind the zeros, for every second case."""
    if number % 2:
        return ()
    return (*((None,) if len(panels) == 2 else ()), rng.normal(size=o).astype(np.float32))


def _matrices(rng: np.random.Generator) -> list[tuple[Any, ...]]:
    """Draw (rows of x, inputs, outputs, arrays of a matrix, format)."""
    formats = ((n, i, o, format_named(name)) for name, n, i, o in (*SIZES, *MORE))
    return [(n, i, o, stored_matrix(rng, format, o, i), format) for n, i, o, format in formats]
