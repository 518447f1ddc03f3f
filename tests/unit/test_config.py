"""Configs describe possible models only, and survive JSON."""

from __future__ import annotations

import json

import pytest

from minislm.config import Head
from minislm.errors import ConfigError
from minislm.models.decoder import DecoderConfig
from minislm.models.encoder import EncoderConfig
from minislm.models.transformer import TransformerConfig

GOOD = {"vocab_size": 23, "d_model": 12, "context": 9, "n_layers": 2, "n_heads": 2}


HEADS = (Head("tags", "token", ("O", "B-x")), Head("words", "masked"))


@pytest.mark.parametrize(
    "config",
    [
        DecoderConfig.uniform(**GOOD, mlp="gated", activation="silu", dropout=0.1),
        EncoderConfig.uniform(**GOOD, heads=HEADS, n_types=0, pooling="mean"),
        TransformerConfig.uniform(**GOOD, n_encoder_layers=1, activation="gelu"),
    ],
    ids=lambda config: config.type,
)
def test_json_round_trip(config):
    assert type(config).from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    "change",
    [
        {"vocab_size": 0},
        {"vocab_size": -3},
        {"vocab_size": 2.0},
        {"vocab_size": True},
        {"vocab_size": 2**31},
        {"context": "9"},
        {"n_layers": 0},
        {"n_heads": 5},
        {"n_heads": 0},
        {"n_kv_heads": 3},
        {"d_ff": -1},
        {"dropout": 1.0},
        {"dropout": float("nan")},
        {"norm": "batch"},
        {"positions": "none"},
        {"activation": "tanh"},
        {"mlp": "gated", "activation": "relu"},
        {"norm_eps": 0.0},
        {"norm_eps": float("inf")},
        {"norm_eps": "1e-5"},
        {"norm_offset": None},
        {"logit_scale": "1"},
        {"embedding_scale": float("nan")},
        {"residual_scale": True},
        {"logit_cap": "none"},
        {"tied": "no"},
        {"biases": ("everything",)},
        {"block": "parallel", "norm_place": "after"},
        {"positions": "rotary", "d_model": 6},
    ],
    ids=str,
)
def test_impossible_models_are_refused_by_name(change):
    with pytest.raises(ConfigError) as caught:
        DecoderConfig.uniform(**{**GOOD, **change})
    assert caught.value.code == "config_invalid"


@pytest.mark.parametrize(
    "change",
    [
        {"n_types": -1},
        {"n_types": 1.5},
        {"pooling": "max"},
        {"activation": "tanh"},
        {"norm_eps": -1.0},
        {"heads": HEADS[:1] * 2},
    ],
    ids=str,
)
def test_impossible_encoders_are_refused_by_name(change):
    with pytest.raises(ConfigError) as caught:
        EncoderConfig.uniform(**{**GOOD, **change})
    assert caught.value.code == "config_invalid"


@pytest.mark.parametrize(
    ("name", "kind", "labels"),
    [
        ("", "masked", ()),
        ("a.b", "masked", ()),
        ("hidden", "masked", ()),
        (3, "masked", ()),
        ("x", "causal", ()),
        ("x", "masked", ("a",)),
        ("x", "span", ("a",)),
        ("x", "token", ()),
        ("x", "sequence", ("a", "a")),
        ("x", "sequence", ("a", 1)),
        ("x", "sequence", "ab"),
    ],
)
def test_impossible_heads_are_refused_by_name(name, kind, labels):
    with pytest.raises(ConfigError) as caught:
        Head(name, kind, labels)
    assert caught.value.code == "config_invalid"


@pytest.mark.parametrize(("kind", "problem"), [("sequence", "ranking"), ("token", "multi_label"), ("sequence", ["x"])])
def test_impossible_problems_are_refused_by_name(kind, problem):
    with pytest.raises(ConfigError, match="problem"):
        Head("x", kind, ("a", "b"), problem)


@pytest.mark.parametrize("heads", [[3], [{"name": "x"}], [{"name": "x", "kind": "span", "odd": 1}], 7])
def test_damaged_heads_in_json_are_refused_by_name(heads):
    with pytest.raises(ConfigError):
        EncoderConfig.from_json({**EncoderConfig.uniform(**GOOD).to_json(), "heads": heads})


def test_a_transformer_needs_encoder_blocks():
    with pytest.raises(ConfigError, match="encoder_layers"):
        TransformerConfig.uniform(**GOOD, n_encoder_layers=0)


@pytest.mark.parametrize("key", ["vocab_size", "layers"])
def test_a_missing_field_is_named(key):
    values = DecoderConfig.uniform(**GOOD).to_json()
    del values[key]
    with pytest.raises(ConfigError, match=key):
        DecoderConfig.from_json(values)


def test_an_unknown_field_is_named():
    with pytest.raises(ConfigError, match="n_embd"):
        DecoderConfig.from_json({**DecoderConfig.uniform(**GOOD).to_json(), "n_embd": 3})
