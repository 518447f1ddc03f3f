"""The laws of DESIGN's models, for every architecture and choice."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from minislm.config import Head, LayerSizes
from minislm.layers.base import Context, Grads, Tape
from minislm.layers.mlp import GATED
from minislm.models import model_class
from minislm.models.bottleneck import Bottleneck
from minislm.models.decoder import CHOICES, Decoder, DecoderConfig
from minislm.models.encoder import EncoderConfig
from minislm.models.transformer import TransformerConfig
from minislm.testing import models as laws
from minislm.testing.batches import sample_ids
from minislm.training.data import TokenWindows, TrainingData
from minislm.training.loop import fit
from minislm.training.settings import TrainSettings

SIZES = {"vocab_size": 23, "d_model": 12, "context": 9, "n_layers": 2, "n_heads": 2, "d_ff": 21}


def sizes(**choices):
    """Odd sizes: no width is a multiple of 8, no two are equal."""
    return DecoderConfig.uniform(**{**SIZES, **choices})


DECODERS = {
    "gpt2": sizes(activation="gelu_tanh"),
    "nanogpt": sizes(biases=(), dropout=0.3),
    "llama": sizes(positions="rotary", norm="rms", mlp="gated", activation="silu", biases=(), tied=False, n_kv_heads=1),
    "mixed": sizes(
        positions="rotary", mlp="gated", activation="gelu", n_heads=3, n_kv_heads=3, tied=False, attention_cap=1.5
    ),
    "relu": sizes(norm="rms", activation="relu", n_layers=1),
    "uneven": DecoderConfig(
        vocab_size=11,
        d_model=10,
        context=8,
        layers=(LayerSizes(4, 2, 6, 17), LayerSizes(1, 1, 2, 3), LayerSizes(3, 1, 4, 5)),
    ),
}
CLASSES = Head("intent", "sequence", ("a", "b", "c")), Head("tags", "token", ("O", "B-x", "I-x", "B-y"))
ENCODERS = {
    "bert": EncoderConfig.uniform(
        **SIZES, dropout=0.3, heads=(Head("words", "masked"), *CLASSES, Head("answer", "span"))
    ),
    "distilbert": EncoderConfig.uniform(**SIZES, n_types=0, activation="relu", pooler=False, heads=CLASSES),
    "sentence": EncoderConfig.uniform(**SIZES, n_types=3, n_kv_heads=1, pooling="mean", heads=CLASSES[:1]),
    "untied": EncoderConfig.uniform(
        **SIZES, tied=False, pooler_activation="relu", heads=(Head("words", "masked"), *CLASSES)
    ),
    "mobilebert": EncoderConfig(
        vocab_size=23,
        d_model=21,
        context=9,
        layers=(LayerSizes(2, 2, 3, 13), LayerSizes(3, 1, 4, 15)),
        heads=(Head("words", "masked"), CLASSES[0], Head("answer", "span")),
        activation="silu",
        bottleneck=Bottleneck(width=10, n_mlps=2, d_embedding=9),
        dropout=0.3,
    ),
    "uneven encoder": EncoderConfig(
        vocab_size=11,
        d_model=10,
        context=8,
        layers=(LayerSizes(4, 2, 6, 17), LayerSizes(1, 1, 2, 3)),
        activation="silu",
        pooler=False,
        heads=(Head("answer", "span"), Head("words", "masked")),
    ),
}
RELATIVE = {"positions": "relative", "n_buckets": 6, "max_distance": 5, "attention_scale": 1.0, "embedding_scale": 1.0}
TRANSFORMERS = {
    "vaswani": TransformerConfig.uniform(**{**SIZES, "n_layers": 1}, dropout=0.3),
    "uneven transformer": TransformerConfig(
        vocab_size=11,
        d_model=9,
        context=8,
        layers=(LayerSizes(4, 2, 6, 17), LayerSizes(1, 1, 2, 3)),
        encoder_layers=(LayerSizes(3, 3, 5, 4),),
        activation="gelu",
    ),
    "t5": TransformerConfig.uniform(
        **{**SIZES, "n_heads": 3}, **RELATIVE, norm="rms", norm_place="before", biases=(), logit_scale=0.7, dropout=0.2
    ),
    "flan": TransformerConfig(
        vocab_size=11,
        d_model=9,
        context=8,
        layers=(LayerSizes(4, 2, 6, 17), LayerSizes(4, 1, 2, 3)),
        encoder_layers=(LayerSizes(3, 3, 5, 4),),
        **RELATIVE,
        norm="rms",
        norm_place="before",
        biases=(),
        mlp="gated",
        activation="gelu_tanh",
        tied=False,
    ),
    "marian": TransformerConfig.uniform(
        **SIZES,
        positions="halves",
        activation="silu",
        embedding_scale=1.0,
        biases=("attention", "output", "mlp", "norm", "head"),
        source_vocab_size=29,
    ),
}


def named(configs):
    """One test for each config."""
    return pytest.mark.parametrize("config", configs.values(), ids=configs.keys())


MODELS = named({**DECODERS, **ENCODERS, **TRANSFORMERS})
WRITERS = named({**DECODERS, **TRANSFORMERS})
READERS = named({**ENCODERS, **TRANSFORMERS})


def created(config, dtype=np.float32):
    """A model whose vectors are not constant, so that no law holds by accident."""
    model = model_class(config.type)[0].create(config, seed=1, dtype=dtype)
    rng = np.random.default_rng(2)
    noisy = {
        name: array + 0.3 * rng.standard_normal(array.shape).astype(dtype) for name, array in model.arrays().items()
    }
    return model.with_arrays(noisy)


@WRITERS
def test_decoding_with_the_cache_equals_the_full_forward(config):
    laws.check_cached_equals_full(created(config))


@WRITERS
def test_the_future_changes_nothing(config):
    laws.check_future_changes_nothing(created(config))


@READERS
def test_every_token_that_is_read_counts(config):
    laws.check_everything_is_read(created(config))


@MODELS
def test_a_batch_equals_its_rows(config):
    laws.check_batch_equals_rows(created(config))


@MODELS
def test_padding_changes_nothing(config):
    laws.check_padding_changes_nothing(created(config))


@MODELS
def test_every_gradient_equals_its_central_difference(config):
    laws.check_model_gradient(created(config, np.float64))


@MODELS
def test_a_model_comes_back_from_its_file(config, tmp_path):
    laws.check_round_trip(created(config), tmp_path)


@READERS
def test_a_tiny_batch_can_be_learnt_by_heart(config):
    laws.check_overfitting(model_class(config.type)[0].create(config, seed=3))


@pytest.mark.parametrize(
    "choice",
    [
        choice
        for values in product(*CHOICES.values())
        for choice in [dict(zip(CHOICES, values, strict=True))]
        if choice["mlp"] == "plain" or choice["activation"] in GATED
        if choice["block"] == "sequential" or choice["norm_place"] == "before"
    ],
    ids=lambda choice: "-".join(choice.values()),
)
def test_every_combination_of_choices_runs_and_stays_float32(choice):
    model = Decoder.create(sizes(**choice))
    tape, grads = Tape(), Grads()
    logits = model.forward(sample_ids(model, 2, 5), Context(), tape)
    model.backward(np.ones_like(logits), tape, grads)
    assert logits.shape == (2, 5, 23)
    assert logits.dtype == np.float32
    assert {array.dtype for array in grads.values()} == {np.dtype(np.float32)}
    assert set(grads) == set(model.parameters())


@named(DECODERS)
def test_a_tiny_text_can_be_overfitted(config):
    ids = np.random.default_rng(3).permutation(config.vocab_size)[:8]  # what follows a token is always the same
    data = TrainingData(TokenWindows(ids, 7))
    settings = TrainSettings(steps=150, batch_size=2, learning_rate=1e-2, weight_decay=0.0, schedule="linear")
    result = fit(Decoder.create(config, seed=3), data, settings)
    assert result.history[-1].loss < 0.05


def test_a_parameter_appears_once_under_its_first_path():
    tied, untied = Decoder.create(DECODERS["gpt2"]), Decoder.create(DECODERS["llama"])
    assert "head.weight" not in tied.parameters()
    assert "head.weight" in untied.parameters()
    assert len({id(array) for array in tied.arrays().values()}) == len(tied.arrays())


def test_replacing_a_weight_shares_everything_else():
    model = Decoder.create(DECODERS["gpt2"])
    path = "blocks.1.mlp.up.weight"
    other = model.replaced({path: model.weights()["blocks.0.mlp.up.weight"]})
    before, after = model.arrays(), other.arrays()
    assert [name for name in before if before[name] is not after[name]] == [path]
    assert after[path] is before["blocks.0.mlp.up.weight"]
