"""Arguments for `minislm.ops.packed`."""

from __future__ import annotations

from typing import Any

import numpy as np

Cases = list[tuple[tuple[Any, ...], dict[str, Any]]]


def attention_packed(rng: np.random.Generator) -> Cases:
    """Draw sequences with one query, with a few and with none, whose keys lie anywhere in a larger store."""
    cases: Cases = []
    for counts, lengths, heads, groups, width, reach, options in (
        ([1], [1], 1, 1, 1, None, {}),
        ([1, 1, 1], [9, 1, 4], 4, 2, 3, None, {"causal": True}),
        ([2, 0, 5, 1], [7, 3, 5, 1], 6, 1, 8, None, {"causal": True}),
        ([1, 3], [17, 9], 6, 3, 8, None, {"causal": True, "window": 4}),
        ([3, 1], [2, 6], 2, 2, 5, None, {"scale": 1.0}),
        ([4, 2], [4, 2], 4, 2, 5, None, {"cap": 2.0}),
        ([5, 1, 7], [19, 19, 7], 6, 2, 7, 4, {"causal": True}),
        ([6, 2], [6, 2], 2, 1, 3, 12, {"window": 3}),
        ([1, 2], [9, 8], 2, 2, 3, 12, {"causal": True, "window": 5, "cap": 30.0}),
        ([2, 1], [0, 3], 2, 1, 4, None, {}),
        ([0], [3], 2, 1, 4, None, {}),
    ):
        q_NHK = rng.normal(size=(sum(counts), heads, width))
        k_SGK, v_SGK = rng.normal(size=(2, sum(lengths) + 5, groups, width))
        firsts_B = rng.integers(0, len(k_SGK) - np.array(lengths) + 1)
        bias = () if reach is None else (rng.normal(size=(heads, 2 * reach + 1)),)
        cases.append(((q_NHK, k_SGK, v_SGK, np.array(counts), firsts_B, np.array(lengths), *bias), dict(options)))
    return [*cases, *_compact(rng, cases[2]), *_compact(rng, cases[6])]


def store_rows(rng: np.random.Generator) -> Cases:
    """Draw rows for stores of every dtype; one row is zero, and numbers are tiny and beyond float16, too."""
    cases: Cases = []
    for n_rows, rows, heads, width in ((1, 1, 1, 1), (3, 7, 2, 5), (5, 5, 3, 33), (0, 2, 1, 4)):
        x_NGK = rng.normal(size=(n_rows, heads, width)) * 10.0 ** rng.integers(-9, 6, (n_rows, heads, 1))
        if n_rows > 1:
            x_NGK[1] = 0.0
        places_N = rng.permutation(rows)[:n_rows]
        stored_SGK = rng.normal(size=(rows, heads, width))
        cases.append(((x_NGK, places_N, stored_SGK), {}))
        cases.append(((x_NGK, places_N, stored_SGK.astype(np.float16)), {}))
        codes_SGK = rng.integers(-127, 128, stored_SGK.shape).astype(np.int8)
        cases.append(((x_NGK, places_N, codes_SGK, rng.random((rows, heads))), {}))
    return cases


def _compact(rng: np.random.Generator, case: tuple[tuple[Any, ...], dict[str, Any]]) -> Cases:
    """Store the keys and values of a case as float16, and as bytes with scales."""
    (q_NHK, k_SGK, v_SGK, *table), options = case
    bias = table[3] if len(table) > 3 else None
    halves = k_SGK.astype(np.float16), v_SGK.astype(np.float16)
    codes = rng.integers(-127, 128, (2, *k_SGK.shape)).astype(np.int8)
    scales = rng.random((2, *k_SGK.shape[:2])) / 64
    return [
        ((q_NHK, *halves, *table), options),
        ((q_NHK, *codes, *table[:3], bias, *scales), options),
    ]
