"""Activations at the ends of the dtype's range, and the error function against the C library's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minislm.ops import load_op
from minislm.ops.erf import erf

# From a value on, how far activation and argument (or zero) may be apart.
LARGE = {np.float32: (20.0, 1e10, 1e30), np.float64: (40.0, 1e100, 1e300)}


@pytest.mark.parametrize(("dtype", "units"), [(np.float64, 6), (np.float32, 4)])
def test_erf_equals_the_c_library(dtype, units):
    x = np.concatenate([np.linspace(-7, 7, 20001), np.logspace(-30, 1, 500)]).astype(dtype)
    expected = np.array([math.erf(value) for value in x.tolist()])
    assert np.all(np.abs(erf(x) - expected) <= units * np.finfo(dtype).eps * np.abs(expected))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_erf_at_hostile_values(dtype):
    x = np.array([np.inf, -np.inf, np.nan, 0.0, np.finfo(dtype).max, np.finfo(dtype).tiny], dtype)
    y = erf(x)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(y, [1, -1, np.nan, 0, 1, 2 / math.sqrt(math.pi) * np.finfo(dtype).tiny], rtol=4 * eps)


@pytest.mark.parametrize("op", ["gelu", "gelu_tanh", "relu", "silu"])
@pytest.mark.parametrize("dtype", LARGE)
def test_far_from_zero_they_are_the_identity_or_zero(op, dtype):
    large = np.array(LARGE[dtype], dtype)
    for sign, slope in ((1, 1.0), (-1, 0.0)):
        y, saved = load_op(op)(sign * large)
        gradient = load_op(f"{op}_backward")(np.ones_like(large), saved)
        np.testing.assert_allclose(y, slope * large, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(gradient, slope, atol=1e-6)


@pytest.mark.parametrize("op", ["gelu", "gelu_tanh", "relu", "silu"])
def test_not_a_number_stays_one(op):
    y, _ = load_op(op)(np.array([np.nan, 1.0]))
    assert np.isnan(y).tolist() == [True, False]


def test_tanh_approximates_gelu():
    x = np.linspace(-6, 6, 1001)
    difference = np.abs(load_op("gelu")(x)[0] - load_op("gelu_tanh")(x)[0]).max()
    assert 1e-4 < difference < 5e-4
