"""Arguments for `minislm.ops.fake_quantize`."""

from __future__ import annotations

from typing import Any

import numpy as np

from minislm.ops.formats import format_named

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]

SIZES = (
    ("int4", 1, 2),
    ("int3", 5, 7),
    ("int4-32", 3, 70),
    ("int8", 4, 9),
    ("int2-64", 2, 65),
    ("int5-32", 2, 31),
    ("nf4-32", 3, 50),
    ("ternary", 2, 9),
)


def fake_quantize(rng: np.random.Generator) -> Cases:
    """Draw weights and scales of both signs that clip some of them; one scale is zero."""
    cases: Cases = []
    for name, n_outputs, n_inputs in SIZES:
        format = format_named(name)
        scales_OJ = rng.uniform(0.5, 2.0, (n_outputs, format.n_groups(n_inputs))) / format.step_range[1]
        scales_OJ[:, ::2] *= -1.0
        if len(scales_OJ) > 1:
            scales_OJ[-1, -1] = 0.0
        cases.append(((rng.normal(size=(n_outputs, n_inputs)), scales_OJ), {"format": format}))
    return cases


def fake_quantize_backward(rng: np.random.Generator) -> Cases:
    """Draw gradients, and what the forward saves."""
    return [
        ((rng.normal(size=w_OI.shape), (w_OI, scales_OJ, options["format"])), {})
        for (w_OI, scales_OJ), options in fake_quantize(rng)
    ]
