"""Losses at the edges: nothing to predict, certain teachers, enormous logits, vanishing rows."""

from __future__ import annotations

import numpy as np
import pytest

from minislm.errors import DataError
from minislm.ops.loss import (
    cosine_distance,
    cosine_distance_backward,
    cross_entropy,
    cross_entropy_backward,
    kl_divergence,
    kl_divergence_backward,
)


@pytest.mark.parametrize("n", [0, 2])
def test_nothing_to_predict_costs_nothing(n):
    loss, saved = cross_entropy(np.full((n, 3), np.nan, np.float32), np.full(n, -100))
    gradient = cross_entropy_backward(1.0, saved)
    assert loss == 0.0
    assert gradient.shape == (n, 3)
    assert np.all(gradient == 0)


def test_ignored_rows_have_no_influence(rng):
    logits, targets = rng.normal(size=(4, 5)), np.array([1, -100, 3, -100])
    loss, saved = cross_entropy(logits, targets, label_smoothing=0.1)
    less, less_saved = cross_entropy(logits[::2], targets[::2], label_smoothing=0.1)
    assert loss == pytest.approx(less, rel=1e-12)
    gradient = cross_entropy_backward(1.0, saved)
    assert np.all(gradient[1::2] == 0)
    np.testing.assert_allclose(gradient[::2], cross_entropy_backward(1.0, less_saved), rtol=1e-12)


@pytest.mark.parametrize("height", [0.0, 1e4, -1e4, 1e30])
def test_height_of_the_logits_does_not_matter(height):
    logits = (np.array([[0.0, 0.5, -1.0]]) + height).astype(np.float32)
    distances = (logits - logits.max()).astype(np.float64)  # what float32 can tell apart at this height
    p = np.exp(distances) / np.exp(distances).sum()
    loss, saved = cross_entropy(logits, np.array([1]))
    assert loss == pytest.approx(-np.log(p[0, 1]), rel=1e-6)
    np.testing.assert_allclose(cross_entropy_backward(1.0, saved), p - [[0, 1, 0]], rtol=1e-6)


def test_impossible_classes():
    logits = np.array([[0.0, -np.inf, 0.0]])
    loss, saved = cross_entropy(logits, np.array([0]))
    assert loss == pytest.approx(np.log(2))
    np.testing.assert_allclose(cross_entropy_backward(1.0, saved), [[-0.5, 0.0, 0.5]])
    assert cross_entropy(logits, np.array([1]))[0] == np.inf


@pytest.mark.parametrize("targets", [[5], [-1], [-101]])
def test_targets_out_of_range(targets):
    with pytest.raises(DataError) as caught:
        cross_entropy(np.zeros((1, 5)), np.array(targets))
    assert caught.value.code == "target_out_of_range"


def test_loss_is_summed_in_float64():
    n = 100_003
    logits = np.tile(np.float32([0.1, 0.0]), (n, 1))
    loss, _ = cross_entropy(logits, np.zeros(n, int))
    one, _ = cross_entropy(logits[:1], np.zeros(1, int))
    assert loss == pytest.approx(one, rel=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
def test_kl_of_equals_is_zero(rng, reverse):
    logits = rng.normal(size=(3, 4))
    logits[0, 1] = -np.inf
    loss, saved = kl_divergence(logits, logits + 7.0, temperature=2.0, reverse=reverse)
    assert loss == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(kl_divergence_backward(1.0, saved), 0.0, atol=1e-12)


def test_kl_where_one_side_finds_a_class_impossible():
    certain, open_minded = np.array([[0.0, -np.inf]]), np.array([[0.0, 0.0]])
    assert kl_divergence(open_minded, certain)[0] == pytest.approx(np.log(2))
    assert kl_divergence(certain, open_minded)[0] == np.inf
    assert kl_divergence(certain, open_minded, reverse=True)[0] == pytest.approx(np.log(2))
    assert kl_divergence(open_minded, certain, reverse=True)[0] == np.inf


def test_temperature_keeps_the_size_of_gradients(rng):
    logits, teacher = 0.01 * rng.normal(size=(2, 5, 7))
    sizes = [
        np.abs(kl_divergence_backward(1.0, kl_divergence(logits, teacher, temperature=t)[1])).sum() for t in (1.0, 8.0)
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_cosine_distance_does_not_depend_on_length(size):
    x, target = np.float32([[size, 0.0]]), np.float32([[size, size]])
    loss, saved = cosine_distance(x, target)
    assert loss == pytest.approx(1 - np.sqrt(0.5), rel=1e-6)
    np.testing.assert_allclose(cosine_distance_backward(1.0, saved) * np.float32(size), [[0, -np.sqrt(0.5)]], rtol=1e-6)


def test_row_of_zeros_has_no_direction():
    loss, saved = cosine_distance(np.zeros((1, 3)), np.ones((1, 3)))
    assert loss == 1.0
    assert np.all(cosine_distance_backward(1.0, saved) == 0)
    assert cosine_distance(np.ones((1, 3)), np.zeros((1, 3)))[0] == 1.0
