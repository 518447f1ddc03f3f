"""Rotary positions tell distances, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from minislm.errors import UsageError
from minislm.layers.rotary import plain
from minislm.ops.rotary import rotary


@pytest.mark.parametrize("interleaved", [False, True])
def test_products_depend_on_the_distance_only(rng, interleaved):
    q, k = rng.normal(size=(2, 1, 1, 8))

    def product(query_at, key_at):
        turned = [
            rotary(x, np.array([at]), tuple(plain(1e4, 8)), interleaved=interleaved)[0]
            for x, at in ((q, query_at), (k, key_at))
        ]
        return float((turned[0] * turned[1]).sum())

    assert product(3, 1) == pytest.approx(product(1003, 1001), rel=1e-9)
    assert product(3, 1) != pytest.approx(product(3, 2), rel=1e-3)


def test_pairings_differ_by_an_order_of_entries(rng):
    x, positions = rng.normal(size=(5, 2, 8)), np.arange(5)
    order = [0, 4, 1, 5, 2, 6, 3, 7]
    half, _ = rotary(x, positions, tuple(plain(1e4, 8)))
    interleaved, _ = rotary(x[..., order], positions, tuple(plain(1e4, 8)), interleaved=True)
    np.testing.assert_array_equal(half[..., order], interleaved)


def test_far_positions_keep_their_fraction():
    x = np.tile(np.float32([1.0, 0.0]), (1, 1, 1))
    y, _ = rotary(x, np.array([1_000_003]), np.ones(1))
    np.testing.assert_allclose(y[0, 0], [np.cos(1_000_003.0), np.sin(1_000_003.0)], atol=1e-6)


def test_the_rest_passes_through(rng):
    x = rng.normal(size=(3, 2, 7))
    y, _ = rotary(x, np.array([5, 6, 7]), tuple(plain(1e4, 4)))
    np.testing.assert_array_equal(y[..., 4:], x[..., 4:])
    assert np.all(y[..., :4] != x[..., :4])


def test_the_factor_multiplies_what_is_turned(rng):
    x = rng.normal(size=(3, 2, 6))
    once, twice = (rotary(x, np.array([5, 6, 7]), tuple(plain(1e4, 4)), factor=factor)[0] for factor in (1.0, 2.0))
    np.testing.assert_array_equal(twice[..., :4], 2 * once[..., :4])
    np.testing.assert_array_equal(twice[..., 4:], x[..., 4:])


@pytest.mark.parametrize("width", [7, 8])
def test_more_pairs_than_a_head_has(width):
    with pytest.raises(UsageError) as caught:
        rotary(np.zeros((1, 1, width)), np.zeros(1, int), np.ones(5))
    assert caught.value.code == "bad_rotary_width"
