"""TrainSettings and the schedule."""

from __future__ import annotations

import json
import math

import pytest

from minislm.errors import ConfigError
from minislm.training.schedule import learning_rate
from minislm.training.settings import TrainSettings


def test_json_gives_back_the_same_settings():
    settings = TrainSettings(steps=7, learning_rate=0.25, freeze="a.*", schedule="linear")
    assert TrainSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


def test_missing_fields_have_their_defaults():
    assert TrainSettings.from_json({"steps": 3}) == TrainSettings(steps=3)


@pytest.mark.parametrize(
    "values",
    [
        {"steps": 0},
        {"steps": 1.0},
        {"steps": True},
        {"batch_size": -1},
        {"accumulate": 0},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"learning_rate": "fast"},
        {"min_learning_rate_ratio": 1.1},
        {"warmup_steps": -1},
        {"schedule": "cosin"},
        {"beta1": 1.0},
        {"beta2": -0.1},
        {"eps": 0},
        {"weight_decay": -1e-9},
        {"clip": math.inf},
        {"eval_every": -1},
        {"keep_checkpoints": 0},
        {"seed": -1},
        {"seed": 2**63},
        {"freeze": None},
        {"patiense": 3},
    ],
)
def test_what_describes_no_run_is_refused_by_name(values):
    with pytest.raises(ConfigError, match=next(iter(values))) as error:
        TrainSettings.from_json(values)
    assert error.value.code == "config_invalid"


def test_a_budget_of_tokens_is_rounded_up_to_whole_steps():
    settings = TrainSettings(batch_size=4, accumulate=2)
    assert settings.tokens_per_step(16) == 128
    assert [settings.for_tokens(n, 16).steps for n in (1, 128, 129, 1280)] == [1, 1, 2, 10]


def nanogpt_rate(it, *, lr, min_lr, warmup, decay_iters):
    """The rule that nanoGPT's README figure was trained with, counted from 0."""
    if it < warmup:
        return lr * (it + 1) / (warmup + 1)
    ratio = (it - warmup) / (decay_iters - warmup)
    return min_lr + 0.5 * (1.0 + math.cos(math.pi * ratio)) * (lr - min_lr)


def test_cosine_is_nanogpts_rule():
    settings = TrainSettings(steps=2000, warmup_steps=100, learning_rate=1e-3, min_learning_rate_ratio=0.1)
    for it in (0, 1, 99, 100, 101, 1000, 1999):
        expected = nanogpt_rate(it, lr=1e-3, min_lr=1e-4, warmup=100, decay_iters=2000)
        assert learning_rate(it + 1, settings) == pytest.approx(expected, rel=1e-12)


def test_linear_and_constant():
    linear = TrainSettings(steps=10, learning_rate=1.0, min_learning_rate_ratio=0.5, schedule="linear")
    assert [learning_rate(step, linear) for step in (1, 6)] == pytest.approx([1.0, 0.75])
    constant = TrainSettings(steps=10, warmup_steps=2, learning_rate=1.0, schedule="constant")
    assert [learning_rate(step, constant) for step in (1, 2, 3, 10)] == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0])


def test_a_warm_up_as_long_as_the_run_has_no_decay():
    settings = TrainSettings(steps=5, warmup_steps=5, learning_rate=1.0)
    assert [learning_rate(step, settings) for step in (1, 5)] == pytest.approx([1 / 6, 5 / 6])
