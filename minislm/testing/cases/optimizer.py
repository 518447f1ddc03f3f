"""Arguments for `minislm.ops.optimizer`."""

from __future__ import annotations

from typing import Any

import numpy as np

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]


def adamw(rng: np.random.Generator) -> Cases:
    """Draw parameters, gradients and moments; the decay is one number or one for each parameter."""
    cases: Cases = []
    for n, step in ((1, 1), (37, 2), (40001, 1000), (0, 1)):
        w, dw, m = rng.normal(size=(3, n))
        v = np.square(rng.normal(size=n))
        options = {"step": step, "learning_rate": 1e-2, "beta1": 0.9, "beta2": 0.98, "eps": 1e-8}
        cases.append(((w, dw, m, v), {**options, "decay": 0.1 if step % 2 else 0.1 * (rng.random(n) < 0.5)}))
    return cases
