"""Dropout depends on its key and on the number of an entry, on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minislm.errors import UsageError
from minislm.ops.dropout import dropout, dropout_backward, site

KEYS = st.tuples(*[st.integers(0, 2**63)] * 4)


def kept(n, rate=0.5, key=(1, 2, 3, 4)):
    return dropout(np.ones(n), rate=rate, key=key)[0] != 0


@given(KEYS, st.integers(0, 60), st.integers(0, 60))
def test_an_entry_does_not_depend_on_how_many_follow(key, n, more):
    np.testing.assert_array_equal(kept(n + more, key=key)[:n], kept(n, key=key))


@given(KEYS)
def test_shape_and_dtype_change_nothing(key):
    flat = kept(24, key=key)
    cube, _ = dropout(np.ones((2, 3, 4), np.float32), rate=0.5, key=key)
    np.testing.assert_array_equal((cube != 0).ravel(), flat)


@pytest.mark.parametrize("part", range(4))
def test_every_part_of_the_key_counts(part):
    one, other = [1, 2, 3, 4], [1, 2, 3, 4]
    other[part] += 1
    share = (kept(20000, key=tuple(one)) == kept(20000, key=tuple(other))).mean()
    assert 0.48 < share < 0.52  # independent: half of the entries agree


def test_order_of_the_key_counts():
    assert (kept(1000, key=(1, 2, 3, 4)) != kept(1000, key=(2, 1, 3, 4))).any()


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.99])
def test_share_and_expected_value(rate):
    n = 200_000
    y, _ = dropout(np.ones(n), rate=rate, key=(0, 0, 0, 0))
    spread = np.sqrt(rate * (1 - rate) / n)
    assert abs((y == 0).mean() - rate) <= 4 * spread
    np.testing.assert_array_equal(y[y != 0], 1 / (1 - rate))


def test_neighbours_are_independent():
    k = kept(200_000).astype(float) - 0.5
    for lag in (1, 2, 64, 128):
        assert abs((k[lag:] * k[:-lag]).mean() / 0.25) < 4 / np.sqrt(len(k))


def test_backward_drops_the_same(rng):
    x = rng.normal(size=(5, 7))
    y, saved = dropout(x, rate=0.5, key=(9, 9, 9, 9))
    np.testing.assert_array_equal(dropout_backward(x, saved), y)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2.0, float("nan")])
def test_bad_rate(rate):
    with pytest.raises(UsageError) as caught:
        dropout(np.ones(3), rate=rate, key=(0, 0, 0, 0))
    assert caught.value.code == "bad_dropout_rate"


def test_sites_differ():
    paths = [f"blocks.{i}.{part}" for i in range(100) for part in ("attention", "mlp")]
    assert len({site(path) for path in paths}) == len(paths)
