"""Arguments for `minislm.ops.float_panels`."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from minislm.ops.float_panels import pack_float_panels

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]

SIZES = ((1, 1, 1), (5, 7, 3), (13, 2, 70), (3, 33, 32), (0, 3, 4))  # rows, inputs, outputs


def float_panel_product(rng: np.random.Generator) -> Cases:
    """Draw rows, panels of every storage, and a bias or none."""
    cases: Cases = []
    for n, i, o in SIZES:
        x_NI, w_OI, b_O = rng.normal(size=(n, i)), rng.normal(size=(o, i)), rng.normal(size=o)
        for stored in (w_OI, w_OI.astype(np.float16), w_OI.astype(ml_dtypes.bfloat16)):
            cases.append(((x_NI, pack_float_panels(stored), b_O), {"n_outputs": o}))
    return [*cases, ((rng.normal(size=(4, 6)), pack_float_panels(rng.normal(size=(5, 6)))), {"n_outputs": 5})]
