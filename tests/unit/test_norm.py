"""Norms of hostile rows."""

from __future__ import annotations

import numpy as np
import pytest

from minislm.ops import load_op

CALLS = {"layer_norm": (np.ones(6, np.float32), np.zeros(6, np.float32)), "rms_norm": (np.ones(6, np.float32),)}


@pytest.mark.parametrize("op", CALLS)
def test_constant_and_zero_rows_stay_finite(op):
    x = np.float32([[0.0] * 6, [7.0] * 6])
    y, saved = load_op(op)(x, *CALLS[op], eps=1e-5)
    np.testing.assert_allclose(y, 0.0 if op == "layer_norm" else [[0.0], [1.0]] * np.ones(6), atol=1e-6)
    assert all(np.isfinite(gradient).all() for gradient in load_op(f"{op}_backward")(y + 1, saved))


@pytest.mark.parametrize("op", CALLS)
@pytest.mark.parametrize("size", [1e-15, 1e15])
def test_size_does_not_matter(op, size, rng):
    x = rng.normal(size=(3, 6)).astype(np.float32)
    y, _ = load_op(op)(x, *CALLS[op], eps=0.0)
    scaled, _ = load_op(op)(x * np.float32(size), *CALLS[op], eps=0.0)
    np.testing.assert_allclose(scaled, y, rtol=1e-5, atol=1e-6)


def test_distant_mean_loses_only_what_float32_cannot_hold():
    x = np.float32([[1e4, 1e4 + 1, 1e4 + 2, 1e4 + 3, 1e4 + 4, 1e4 + 5]])
    y, _ = load_op("layer_norm")(x, *CALLS["layer_norm"], eps=0.0)
    expected, _ = load_op("layer_norm")(x.astype(np.float64) - 1e4, np.ones(6), np.zeros(6), eps=0.0)
    np.testing.assert_allclose(y, expected, atol=1e-3)
