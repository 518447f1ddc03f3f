"""What published decoders can say of a Config, and what is refused in their folders before memory is taken."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

from minislm import load, models, save
from minislm.config import LayerSizes
from minislm.errors import MinislmError, UnsupportedError, UsageError
from minislm.language_model import LanguageModel
from minislm.layers.rotary import DynamicNTK, Linear, Llama3, LongRope, Rotary, Yarn
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.models.fields import Fields
from minislm.text.tokenizer import Tokenizer

SIZES = {"vocab_size": 257, "d_model": 24, "context": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "d_ff": 40}
LLAMA = {"positions": "rotary", "norm": "rms", "mlp": "gated", "activation": "silu", "biases": ()}
SCALINGS = (
    Linear(2.0),
    DynamicNTK(2.0, 32),
    Llama3(8.0, 1.0, 4.0, 16),
    Yarn(4.0, 16),
    Yarn(4.0, 16, 30.0, 2.0, 1.25, False),
    LongRope((1.0, 1.5, 2.0), (1.0, 3.0, 9.0), 32, 64, 1.2),
)
CHOICES = {
    "our own": {},
    "nothing": {"biases": (), "tied": False},
    "learned, rms": {"norm": "rms"},
    "gated, learned": {"mlp": "gated", "activation": "silu"},
    "llama": LLAMA,
    "plain, rotary": {"positions": "rotary"},
    "around": {**LLAMA, "norm_place": "around", "norm_offset": 1.0},
    "after": {**LLAMA, "norm_place": "after", "query_key_norm": "whole"},
    "heads": {**LLAMA, "query_key_norm": "head"},
    "parallel": {"block": "parallel"},
    "parallel, rotary": {"block": "parallel", "positions": "rotary", "tied": False},
    "scaled": {**LLAMA, "embedding_scale": 3.0, "residual_scale": 0.5, "logit_scale": 0.25, "attention_scale": 1.0},
    "capped": {**LLAMA, "logit_cap": 30.0, "attention_cap": 50.0},
    "interleaved": {**LLAMA, "rotaries": (Rotary(1e4, 4, True),)},
    **{type(scaling).__name__: {**LLAMA, "rotaries": (Rotary(5e5, 6, False, scaling),)} for scaling in SCALINGS},
}


def made(choice):
    return Decoder.create(DecoderConfig.uniform(**SIZES, **CHOICES[choice]), seed=1)


@pytest.mark.parametrize("choice", CHOICES)
def test_what_a_checkpoint_says_is_read_as_the_same(choice):
    model = made(choice)
    said = {}
    for model_type in models.PUBLISHED:
        how = models.published(model_type)
        values = how.said(model.config, model.arrays())
        if values is not None:
            said[model_type] = how.read(Fields(json.loads(json.dumps(values))), how.saved(model.arrays()))
    assert all(config == model.config for config in said.values())
    if choice in ("llama", "heads", "after", *(type(scaling).__name__ for scaling in SCALINGS)):
        assert said


@pytest.mark.parametrize("choice", CHOICES)
def test_a_save_comes_back(choice, tmp_path):
    lm = LanguageModel(made(choice), Tokenizer.train([], kind="bytes"))
    save(lm, tmp_path / "model")
    back = load(tmp_path / "model")
    assert back.model.config == lm.model.config
    ids = np.arange(20)
    np.testing.assert_array_equal(back.logits(ids), lm.logits(ids))


def test_blocks_that_differ_are_said_where_they_can_be(tmp_path):
    wide, narrow = LayerSizes(4, 2, 6, 40, window=4), LayerSizes(4, 2, 6, 40, rotary=None)
    config = DecoderConfig(vocab_size=257, d_model=24, context=32, layers=(wide, narrow), **LLAMA)
    lm = LanguageModel(Decoder.create(config), Tokenizer.train([], kind="bytes"))
    save(lm, tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["model_type"] == "smollm3"
    assert load(tmp_path / "model").model.config == config


@pytest.fixture
def folder(tmp_path):
    """A folder as other libraries write it."""
    save(LanguageModel(made("llama"), Tokenizer.train([], kind="bytes")), tmp_path / "model")
    return tmp_path / "model"


BAD = [
    ("hidden_size", 48, "config_vs_weights"),
    ("vocab_size", 2**30, "config_vs_weights"),
    ("intermediate_size", 41, "config_vs_weights"),
    ("num_hidden_layers", 3, "config_vs_weights"),
    ("num_hidden_layers", 2**40, "config_invalid"),
    ("num_hidden_layers", 0, "config_invalid"),
    ("num_attention_heads", "4", "config_invalid"),
    ("num_attention_heads", 3, "config_invalid"),
    ("num_attention_heads", 0, "config_invalid"),
    ("intermediate_size", 0, "config_invalid"),
    ("rms_norm_eps", 0, "config_invalid"),
    ("num_key_value_heads", 3, "config_invalid"),
    ("head_dim", 7, "config_invalid"),
    ("head_dim", 10**9, "config_invalid"),
    ("hidden_size", -1, "config_invalid"),
    ("rope_parameters", {"rope_type": []}, "unknown_rotary_scaling"),
    ("rope_parameters", {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 0}, "config_invalid"),
    (
        "rope_parameters",
        {"rope_type": "longrope", "factor": 2.0, "short_factor": [1], "long_factor": ["x"]},
        "config_invalid",
    ),
    ("partial_rotary_factor", 1e308, "config_invalid"),
    ("hidden_act", "swiglu", "unsupported_config"),
    ("rms_norm_eps", float("1e400"), "config_invalid"),
    ("rope_theta", -1.0, "config_invalid"),
    ("rope_scaling", {"rope_type": "spiral"}, "unknown_rotary_scaling"),
    ("max_position_embeddings", 0, "config_invalid"),
    ("tie_word_embeddings", "yes", "config_invalid"),
    ("attention_bias", True, "config_vs_weights"),
    ("model_type", "lama", "unknown_architecture"),
    ("model_type", None, "config_invalid"),
]


@pytest.mark.parametrize(("name", "value", "code"), BAD)
def test_a_field_that_cannot_be_is_named_before_memory_is_taken(folder, name, value, code):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, name: value}).replace("Infinity", "1e400"))
    tracemalloc.start()
    try:
        with pytest.raises(MinislmError) as caught:
            load(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.code == code
    assert str(folder / "config.json" if code == "config_invalid" else folder) in str(caught.value)
    assert code != "config_invalid" or isinstance(value, dict) or name in str(caught.value)
    assert peak < 32 * 2**20


@pytest.mark.parametrize(
    ("name", "meant"),
    [("lama", "llama"), ("bertt", "bert"), ("qwne2", "qwen2"), ("gpt-2", "gpt2"), ("GPTNeo", "gpt_neo")],
)
def test_the_architecture_that_was_meant_is_named(folder, name, meant):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "model_type": name}))
    with pytest.raises(MinislmError, match=rf"config\.json: model_type: .* Did you mean '{meant}'\? Known: bert, "):
        load(folder)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("gemma", "gemma2, gemma3_text"),
        ("olmo", "olmo2"),
        ("qwen", "qwen2, qwen3"),
        ("qwen3_moe", "qwen2, qwen3"),
        ("phi4", "phi, phi3"),
        ("gpt_neox", "gpt2, gpt_neo, gptj"),
        ("roberta", "bert"),
        ("albert", "bert"),
    ],
)
def test_the_family_of_another_architecture_is_named(name, family):
    with pytest.raises(UnsupportedError, match=rf"\. Of its family minislm runs {family}\. Known: bert, "):
        models.published(name)


@pytest.mark.parametrize("name", ["5", "t", "mt5", "mamba", "mixtral", "bart"])
def test_what_is_like_no_known_architecture_gets_no_advice(name):
    with pytest.raises(UnsupportedError, match=rf"^unknown architecture '{name}'\. Known: bert, "):
        models.published(name)


def test_the_text_model_is_named_for_one_of_texts_and_images():
    with pytest.raises(UnsupportedError, match=r"'gemma3' is a model of texts and images; .* 'gemma3_text'"):
        models.published("gemma3")


def test_a_context_may_be_chosen(folder):
    assert load(folder, context=8).model.config.context == 8
    for context in (0, -1, 2**40):
        with pytest.raises(UsageError, match=rf"does not open so: context must be .*, not {context}$"):
            load(folder, context=context)


def test_heads_that_do_not_share_the_width_are_told_in_the_words_of_the_file(folder):
    values = json.loads((folder / "config.json").read_text())
    del values["head_dim"]
    (folder / "config.json").write_text(json.dumps({**values, "num_attention_heads": 5}))
    told = rf"hidden_size \({values['hidden_size']}\) must be a multiple of num_attention_heads \(5\)"
    with pytest.raises(MinislmError, match=told):
        load(folder)


def test_a_bad_id_of_a_folder_without_generation_settings_is_found_in_its_config(folder):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "eos_token_id": "x"}))
    (folder / "generation_config.json").unlink()
    lm = load(folder)
    with pytest.raises(MinislmError, match=r"/config\.json: eos_token_id must hold token ids, not 'x'"):
        lm.generate([1])
