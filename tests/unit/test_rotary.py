"""Rotary positions tell distances, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from minislm.errors import UsageError
from minislm.ops.rotary import rotary


@pytest.mark.parametrize("interleaved", [False, True])
def test_products_depend_on_the_distance_only(rng, interleaved):
    q, k = rng.normal(size=(2, 1, 1, 8))

    def product(query_at, key_at):
        turned = [rotary(x, np.array([at]), interleaved=interleaved)[0] for x, at in ((q, query_at), (k, key_at))]
        return float((turned[0] * turned[1]).sum())

    assert product(3, 1) == pytest.approx(product(1003, 1001), rel=1e-9)
    assert product(3, 1) != pytest.approx(product(3, 2), rel=1e-3)


def test_pairings_differ_by_an_order_of_entries(rng):
    x, positions = rng.normal(size=(5, 2, 8)), np.arange(5)
    order = [0, 4, 1, 5, 2, 6, 3, 7]
    half, _ = rotary(x, positions)
    interleaved, _ = rotary(x[..., order], positions, interleaved=True)
    np.testing.assert_array_equal(half[..., order], interleaved)


def test_far_positions_keep_their_fraction():
    x = np.tile(np.float32([1.0, 0.0]), (1, 1, 1))
    y, _ = rotary(x, np.array([1_000_003]))
    np.testing.assert_allclose(y[0, 0], [np.cos(1_000_003.0), np.sin(1_000_003.0)], atol=1e-6)


def test_the_rest_passes_through(rng):
    x = rng.normal(size=(3, 2, 7))
    y, _ = rotary(x, np.array([5, 6, 7]), width=4)
    np.testing.assert_array_equal(y[..., 4:], x[..., 4:])
    assert np.all(y[..., :4] != x[..., :4])


@pytest.mark.parametrize("width", [3, 10, -2])
def test_bad_width(width):
    with pytest.raises(UsageError) as caught:
        rotary(np.zeros((1, 1, 8)), np.zeros(1, int), width=width)
    assert caught.value.code == "bad_rotary_width"


def test_odd_head_needs_a_width():
    with pytest.raises(UsageError, match="even"):
        rotary(np.zeros((1, 1, 7)), np.zeros(1, int))
