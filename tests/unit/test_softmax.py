"""Softmax of hostile rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minislm.ops.softmax import log_softmax, softmax, softmax_backward

ROWS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6),
    elements=st.floats(-(2.0**127), 2.0**127, width=32) | st.just(-np.inf) | st.floats(-5, 5, width=32),
)


@given(ROWS)
def test_probabilities_sum_to_one_or_the_row_is_impossible(x):
    with np.errstate(over="ignore"):  # the distance of two far logits may be -inf, which is right
        p, _ = softmax(x)
    possible = (x > -np.inf).any(axis=1)
    assert p.dtype == np.float32
    assert np.all((p >= 0) & (p <= 1))
    np.testing.assert_allclose(p.sum(axis=1), possible, atol=1e-6)
    assert np.all(p[x == -np.inf] == 0)


@given(ROWS, st.integers(-60, 100))
def test_gradient_is_finite_and_sums_to_zero(x, exponent):
    size = 2.0**exponent
    with np.errstate(over="ignore"):
        _, saved = softmax(x)
    dp = np.float32(size) * np.linspace(-1, 1, x.shape[1], dtype=np.float32) * np.ones_like(x)
    dx = softmax_backward(dp, saved)
    assert np.isfinite(dx).all()
    assert np.all(np.abs(dx.sum(axis=1, dtype=np.float64)) <= 1e-5 * size)


def test_adding_a_number_changes_nothing(rng):
    x = rng.integers(-8, 8, (5, 7)).astype(np.float32)
    np.testing.assert_array_equal(softmax(x)[0], softmax(x + 2.0**20)[0])


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (1, 1)])
def test_small_sizes(shape):
    p, saved = softmax(np.zeros(shape))
    assert p.shape == softmax_backward(p, saved).shape == log_softmax(np.zeros(shape)).shape == shape


def test_log_softmax_keeps_what_softmax_loses():
    x = np.array([[0.0, -200.0], [-np.inf, -np.inf]], np.float32)
    assert softmax(x)[0][0, 1] == 0
    np.testing.assert_array_equal(log_softmax(x), x)
