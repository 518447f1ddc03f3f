"""Arguments for `minislm.ops.quantized`: every width and group, odd sizes, zero groups, all codes at their extremes."""

from __future__ import annotations

from typing import Any

import numpy as np

from minislm.ops.formats import Format, format_named
from minislm.ops.quantized import ACTIVATION_GROUPS

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]

# Format, rows, inputs, outputs. Inputs end inside a byte, inside a group, or on neither.
SIZES = (
    ("int8", 5, 7, 3),
    ("int8", 1, 33, 17),
    ("int4-32", 1, 1, 1),
    ("int4-32", 4, 64, 5),
    ("int4-32", 3, 70, 4),
    ("int3", 2, 13, 6),
    ("int2-128", 2, 130, 3),
    ("int5", 3, 9, 2),
    ("int6-64", 2, 65, 3),
    ("int7-32", 1, 31, 2),
    ("uint4-64", 4, 100, 3),
    ("uint8", 3, 37, 5),
    ("uint3-32", 2, 95, 2),
    ("nf4-64", 3, 100, 5),
    ("nf4", 1, 37, 18),
    ("ternary", 2, 67, 17),
    ("ternary-128", 1, 200, 3),
    ("int4", 0, 6, 2),
)


def quantized_product(rng: np.random.Generator) -> Cases:
    """Draw rows and quantized matrices."""
    return [((x_NI, *stored), {"format": format}) for x_NI, stored, format in _matrices(rng)]


def quantized_product_t(rng: np.random.Generator) -> Cases:
    """Draw output gradients and quantized matrices."""
    return [
        ((rng.normal(size=(len(x_NI), len(stored[0]))), *stored), {"format": format, "n_inputs": x_NI.shape[1]})
        for x_NI, stored, format in _matrices(rng)
    ]


def quantized_rows(rng: np.random.Generator) -> Cases:
    """Draw row numbers, with repetitions, and quantized matrices."""
    return [
        ((rng.integers(0, len(stored[0]), len(x_NI) + 2), *stored), {"format": format, "n_inputs": x_NI.shape[1]})
        for x_NI, stored, format in _matrices(rng)
    ]


def quantize_activations(rng: np.random.Generator) -> Cases:
    """Draw rows of very different size, some of them zero, some with one large entry; given scales clip some."""
    cases: Cases = []
    for n_rows, n_inputs, group in ((1, 1, 0), (4, 7, 0), (3, 32, 32), (5, 70, 32), (2, 31, 32), (0, 5, 0)):
        x_NI = rng.normal(size=(n_rows, n_inputs)) * 10.0 ** rng.integers(-6, 7, (n_rows, 1))
        x_NI[1:2] = 0.0
        x_NI[2:3, -1] *= 1e4
        cases.append(((x_NI,), {"group": group}))
        cases.append(((x_NI,), {"group": group, "scale": float(rng.uniform(0.001, 0.1))}))
    cases.append(((x_NI,), {"group": 0, "scale": 0.0}))
    return cases


def quantized_product_int8(rng: np.random.Generator) -> Cases:
    """Draw rows and quantized matrices for every way of rounding activations; a static scale clips some."""
    return [
        ((x_NI, *stored), {"format": format, "activations": activations, **scale})
        for x_NI, stored, format in _matrices(rng)
        for activations in ACTIVATION_GROUPS
        for scale in ([{"activation_scale": 0.013}] if activations == "static" else [{}])
    ]


def _matrices(rng: np.random.Generator) -> list[tuple[np.ndarray, tuple[np.ndarray, ...], Format]]:
    """Draw (rows, arrays of a quantized matrix, format) for each of `SIZES`."""
    return [
        (rng.normal(size=(n, i)), stored_matrix(rng, format_named(name), o, i), format_named(name))
        for name, n, i, o in SIZES
    ]


def stored_matrix(rng: np.random.Generator, format: Format, n_outputs: int, n_inputs: int) -> tuple[np.ndarray, ...]:
    """Draw any codes and scales at all; the first row's codes are at an end of the range, the last group is zero.

    Parameters
    ----------
    rng : Generator
        Source of the numbers.
    format : Format
        Of the matrix.
    n_outputs, n_inputs : int
        Its size.

    Returns
    -------
    tuple of ndarray
        Codes, scales, and zeros where the format has them.
    """
    low, high = format.code_range
    codes_OI = rng.integers(low, high + 1, (n_outputs, n_inputs)).astype(np.uint8)
    codes_OI[0] = rng.choice([low, high], n_inputs)
    scales_OJ = rng.uniform(0.01, 0.2, (n_outputs, format.n_groups(n_inputs))).astype(format.scale_dtype)
    if scales_OJ.size > 1:
        scales_OJ[-1, -1] = 0.0
    if format.symmetric:
        return format.pack(codes_OI), scales_OJ
    return format.pack(codes_OI), scales_OJ, rng.integers(low, high + 1, scales_OJ.shape).astype(np.uint8)
