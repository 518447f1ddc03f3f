"""What is particular to sampling: each filter by hand, the chain, the counter-based randomness, and hostile logits."""

from types import SimpleNamespace

import numpy as np
import pytest

from minislm.errors import GenerationError, UsageError
from minislm.inference import sampling
from minislm.inference.settings import GenerationSettings
from minislm.ops.sampling import keep_min_p, keep_top_k, keep_top_p

LOGITS = np.log(np.array([0.4, 0.3, 0.2, 0.06, 0.04]))


def kept(logits):
    return np.flatnonzero(np.isfinite(logits)).tolist()


@pytest.mark.parametrize(("k", "expected"), [(1, [0]), (3, [0, 1, 2]), (5, [0, 1, 2, 3, 4]), (9, [0, 1, 2, 3, 4])])
def test_top_k_keeps_k(k, expected):
    assert kept(keep_top_k(LOGITS, k)) == expected


def test_top_k_keeps_equals_of_the_last():
    assert kept(keep_top_k(np.array([1.0, 3.0, 2.0, 2.0]), 2)) == [1, 2, 3]


@pytest.mark.parametrize(
    ("p", "expected"),
    [(1e-9, [0]), (0.39, [0]), (0.41, [0, 1]), (0.71, [0, 1, 2]), (0.95, [0, 1, 2, 3]), (0.97, [0, 1, 2, 3, 4])],
)
def test_top_p_keeps_the_fewest_that_reach_p(p, expected):
    assert kept(keep_top_p(LOGITS, p)) == expected


def test_top_p_takes_lower_ids_of_equals():
    logits = np.where(np.random.default_rng(0).random(400) < 0.5, 1.0, 0.0)
    likely = np.flatnonzero(logits)
    assert kept(keep_top_p(logits, 0.3)) == likely[: len(kept(keep_top_p(logits, 0.3)))].tolist()


@pytest.mark.parametrize(("p", "expected"), [(0.09, [0, 1, 2, 3, 4]), (0.12, [0, 1, 2, 3]), (0.51, [0, 1]), (1.0, [0])])
def test_min_p_is_relative_to_the_most_likely(p, expected):
    assert kept(keep_min_p(LOGITS, p)) == expected


def test_repetition_penalty_lowers_both_signs_once():
    penalized = sampling.penalize_repetition(np.array([2.0, -2.0, 1.0]), [0, 1, 1, 0], 2.0)
    np.testing.assert_array_equal(penalized, [1.0, -4.0, 1.0])


def test_repetition_penalty_with_nothing_seen():
    np.testing.assert_array_equal(sampling.penalize_repetition(LOGITS, [], 2.0), LOGITS)


def test_temperature_is_a_power_of_the_probabilities():
    p = sampling.probabilities(LOGITS, GenerationSettings(temperature=2.0), [])
    expected = np.exp(LOGITS) ** 0.5
    np.testing.assert_allclose(p, expected / expected.sum(), rtol=1e-12)


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-9])
def test_cold_is_greedy(temperature):
    settings = GenerationSettings(temperature=temperature)
    assert sampling.choose(LOGITS.astype(np.float32)[::-1], settings, [], 0) == 4


def test_greedy_takes_the_lowest_id_of_equals_after_the_penalty():
    logits = np.array([5.0, 3.0, 3.0, 1.0])
    assert sampling.choose(logits, GenerationSettings(temperature=0.0, repetition_penalty=2.0), [0], 0) == 1


def test_draws_follow_the_distribution():
    settings = GenerationSettings(temperature=1.0, seed=3)
    draws = [sampling.choose(LOGITS, settings, [], index) for index in range(4000)]
    frequencies = np.bincount(draws, minlength=5) / len(draws)
    assert not (np.abs(frequencies - np.exp(LOGITS)) > 4 * np.sqrt(0.25 / len(draws))).any()


def test_tokens_that_are_filtered_out_are_never_drawn():
    settings = GenerationSettings(temperature=1.0, top_k=2)
    logits = np.array([0.0, 5.0, 1.0, 4.9, -1.0])
    assert {sampling.choose(logits, settings, [], index) for index in range(300)} == {1, 3}


def test_a_draw_is_a_function_of_seed_and_index():
    draws = {
        seed: [
            sampling.choose(np.zeros(1000), GenerationSettings(temperature=1.0, seed=seed), [], i) for i in range(20)
        ]
        for seed in (0, 1, 2**64 - 1)
    }
    for seed, drawn in draws.items():
        settings = GenerationSettings(temperature=1.0, seed=seed)
        assert [sampling.choose(np.zeros(1000), settings, [], i) for i in reversed(range(20))] == drawn[::-1]
        assert len(set(drawn)) > 10
    assert len({tuple(drawn) for drawn in draws.values()}) == 3


@pytest.mark.parametrize("uniform", [0.0, 1.0 - 2.0**-53])
@pytest.mark.parametrize("n", range(1, 60))
def test_the_ends_of_the_unit_interval_draw_possible_tokens(uniform, n, monkeypatch):
    monkeypatch.setattr(np.random, "Generator", lambda bits: SimpleNamespace(random=lambda: uniform))
    logits = np.array([-2000.0] * 3 + [0.0] * n + [-2000.0] * 3)
    expected = 3 if uniform == 0.0 else n + 2
    assert sampling.choose(logits, GenerationSettings(temperature=1.0), [], 0) == expected


def test_ids_beyond_the_vocabulary_have_no_logit_to_penalize():
    np.testing.assert_array_equal(sampling.penalize_repetition(np.ones(3), [2, 3, 9], 2.0), [1, 1, 0.5])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_refused(value, temperature):
    logits = np.zeros(7, np.float32)
    logits[4] = value
    with pytest.raises(GenerationError, match="1 of 7") as caught:
        sampling.choose(logits, GenerationSettings(temperature=temperature), [], 0)
    assert caught.value.code == "logits_not_finite"


def test_the_logits_are_left_as_they_were():
    logits = np.linspace(-2, 3, 11)
    logits.flags.writeable = False
    settings = GenerationSettings(temperature=0.5, top_k=5, top_p=0.9, min_p=0.01, repetition_penalty=1.3)
    assert not (abs(sampling.probabilities(logits, settings, [1, 10]).sum() - 1) > 1e-12)


@pytest.mark.parametrize(
    "bad",
    [
        {"max_new_tokens": -1},
        {"max_new_tokens": 1.5},
        {"max_new_tokens": True},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"temperature": "hot"},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"min_p": 1.01},
        {"repetition_penalty": 0.0},
        {"stop": "a"},
        {"stop": [""]},
        {"stop": [3]},
        {"seed": -1},
        {"seed": 2**64},
        {"no_such_option": 1},
    ],
)
def test_options_out_of_range_are_named(bad):
    with pytest.raises(UsageError, match=next(iter(bad))) as caught:
        GenerationSettings().replaced(**bad)
    assert caught.value.code == "bad_generation_setting"


def test_settings_survive_json():
    settings = GenerationSettings(max_new_tokens=3, top_p=0.5, stop=["a", "b"], ignore_eos=True, seed=2**64 - 1)
    assert settings.to_json()["stop"] == ["a", "b"]
    assert GenerationSettings.from_json(settings.to_json()) == settings
    assert GenerationSettings.from_json({"top_k": 4}) == GenerationSettings(top_k=4)
