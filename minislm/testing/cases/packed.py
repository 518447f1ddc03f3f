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
    return [*cases, _halves(cases[2]), _halves(cases[6])]


def attention_packed_int8(rng: np.random.Generator) -> Cases:
    """Draw the same cases over bytes, and longer ones; scales differ much, and one value is zero."""
    cases: Cases = []
    for (q_NHK, k_SGK, _, *table), options in [*attention_packed(rng)[:11], *_longer(rng)]:
        codes = rng.integers(-127, 128, (2, *k_SGK.shape)).astype(np.int8)
        scales = rng.random((2, *k_SGK.shape[:2])) * 10.0 ** rng.integers(-4, 0, (2, *k_SGK.shape[:2]))
        codes[1, len(k_SGK) // 2], scales[1, len(k_SGK) // 2] = 0, 0.0
        cases.append(((q_NHK, *codes, *scales, *table), options))
    return cases


def _longer(rng: np.random.Generator) -> Cases:
    """Draw sequences whose keys fill tiles, or all but fill them, of heads that fill registers and a little more."""
    cases: Cases = []
    for counts, lengths, heads, groups, width, options in (
        ([1, 17], [64, 129], 4, 2, 36, {"causal": True}),
        ([30], [191], 3, 1, 64, {"causal": True, "window": 70}),
        ([3, 1], [65, 128], 6, 6, 17, {"cap": 20.0}),
    ):
        k_SGK = rng.normal(size=(sum(lengths) + 3, groups, width))
        table = np.array(counts), rng.integers(0, len(k_SGK) - np.array(lengths) + 1), np.array(lengths)
        cases.append(((rng.normal(size=(sum(counts), heads, width)), k_SGK, k_SGK, *table), dict(options)))
    return cases


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
        cases.append(((x_NGK, None, codes_SGK, rng.random((rows, heads))), {}))
        cases.append(((x_NGK, None, stored_SGK), {}))
    return cases


def _halves(case: tuple[tuple[Any, ...], dict[str, Any]]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Store the keys and values of a case as float16."""
    (q_NHK, k_SGK, v_SGK, *table), options = case
    return (q_NHK, k_SGK.astype(np.float16), v_SGK.astype(np.float16), *table), options
