"""Arguments for `minislm.ops.attention`."""

from __future__ import annotations

from typing import Any

import numpy as np

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]


def attention(rng: np.random.Generator) -> Cases:
    """Draw queries, keys, values and biases with every kind of mask; some queries see no key."""
    plain: Cases = [
        (_inputs(rng, 1, 1, 1, 1, 1, 1), {}),
        (_inputs(rng, 2, 5, 7, 4, 2, 3), {}),
        (_inputs(rng, 2, 6, 6, 3, 3, 5), {"causal": True}),
        (_inputs(rng, 1, 9, 9, 4, 1, 4), {"causal": True, "window": 3, "scale": 1.0}),
        (_inputs(rng, 1, 7, 7, 2, 2, 2), {"window": 2}),
        (_inputs(rng, 2, 0, 3, 2, 1, 4), {}),
        (_inputs(rng, 2, 3, 0, 2, 1, 4), {}),
    ]
    starts: Cases = [(_inputs(rng, 3, 2, 8, 4, 2, 3), {"causal": True, "starts_B": np.array([0, 6, 3])})]
    mask = rng.random((3, 8)) < 0.6
    mask[1] = False
    mask[::2, :2] = True  # where each query saw but one key, all gradients of scores would be noise
    padding: Cases = [
        (_inputs(rng, 3, 4, 8, 2, 2, 3), {"key_mask_BS": mask}),
        (_inputs(rng, 3, 8, 8, 2, 1, 3), {"key_mask_BS": mask, "causal": True, "window": 5}),
    ]
    capped: Cases = [
        (_inputs(rng, 2, 4, 7, 4, 2, 3), {"cap": 1.5}),
        (_inputs(rng, 3, 3, 8, 2, 2, 5), {"cap": 30.0, "causal": True, "key_mask_BS": mask}),
    ]
    biased: Cases = [
        ((*_inputs(rng, 2, 5, 7, 4, 2, 3), rng.normal(size=(4, 5))), {}),
        ((*_inputs(rng, 3, 2, 8, 2, 1, 3), rng.normal(size=(2, 9))), {"causal": True, "starts_B": np.array([0, 6, 3])}),
        ((*_inputs(rng, 3, 9, 8, 6, 3, 4), rng.normal(size=(6, 31))), {"key_mask_BS": mask, "cap": 2.0, "scale": 1.0}),
        ((*_inputs(rng, 1, 3, 0, 2, 1, 4), rng.normal(size=(2, 3))), {}),
    ]
    return [*plain, *starts, *padding, *capped, *biased]


def attention_map(rng: np.random.Generator) -> Cases:
    """Draw queries and keys as for `attention`."""
    return [((q_BTHK, k_BSGK, *bias), options) for (q_BTHK, k_BSGK, _, *bias), options in attention(rng)]


def _inputs(
    rng: np.random.Generator, rows: int, queries: int, keys: int, heads: int, groups: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    q_BTHK = rng.normal(size=(rows, queries, heads, width))
    k_BSGK, v_BSGK = rng.normal(size=(2, rows, keys, groups, width))
    return q_BTHK, k_BSGK, v_BSGK
