"""The laws of DESIGN's models, for every architecture and choice."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from minislm.config import LayerSizes
from minislm.layers.base import Context, Grads, Tape
from minislm.models.decoder import CHOICES, GATED, Decoder, DecoderConfig
from minislm.testing import models as laws
from minislm.training.data import TokenWindows, TrainingData
from minislm.training.loop import fit
from minislm.training.settings import TrainSettings


def sizes(**choices):
    """Odd sizes: no width is a multiple of 8, no two are equal."""
    options = {"vocab_size": 23, "d_model": 12, "context": 9, "n_layers": 2, "n_heads": 2, "d_ff": 21}
    return DecoderConfig.uniform(**{**options, **choices})


CONFIGS = {
    "gpt2": sizes(activation="gelu_tanh"),
    "nanogpt": sizes(bias=False),
    "llama": sizes(
        positions="rotary", norm="rms", mlp="gated", activation="silu", bias=False, tied=False, n_kv_heads=1
    ),
    "mixed": sizes(positions="rotary", mlp="gated", activation="gelu", n_heads=3, n_kv_heads=3, tied=False),
    "relu": sizes(norm="rms", activation="relu", n_layers=1),
    "uneven": DecoderConfig(
        vocab_size=11,
        d_model=10,
        context=8,
        layers=(LayerSizes(4, 2, 6, 17), LayerSizes(1, 1, 2, 3), LayerSizes(3, 1, 4, 5)),
    ),
}
MODELS = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def created(config, dtype=np.float32):
    """A model whose vectors are not constant, so that no law holds by accident."""
    model = Decoder.create(config, seed=1, dtype=dtype)
    rng = np.random.default_rng(2)
    noisy = {
        name: array + 0.3 * rng.standard_normal(array.shape).astype(dtype) for name, array in model.arrays().items()
    }
    return model.with_arrays(noisy)


@MODELS
def test_decoding_with_the_cache_equals_the_full_forward(config):
    laws.check_cached_equals_full(created(config))


@MODELS
def test_the_future_changes_nothing(config):
    laws.check_future_changes_nothing(created(config))


@MODELS
def test_a_batch_equals_its_rows(config):
    laws.check_batch_equals_rows(created(config))


@MODELS
def test_padding_changes_nothing(config):
    laws.check_padding_changes_nothing(created(config))


@MODELS
def test_every_gradient_equals_its_central_difference(config):
    laws.check_model_gradient(created(config, np.float64))


@pytest.mark.parametrize(
    "choice",
    [
        dict(zip(CHOICES, values, strict=True))
        for values in product(*CHOICES.values())
        if values[2] == "plain" or values[3] in GATED
    ],
    ids=lambda choice: "-".join(choice.values()),
)
def test_every_combination_of_choices_runs_and_stays_float32(choice):
    model = Decoder.create(sizes(**choice))
    tape, grads = Tape(), Grads()
    logits = model.forward(laws.sample_ids(model, 2, 5), Context(), tape)
    model.backward(np.ones_like(logits), tape, grads)
    assert logits.shape == (2, 5, 23)
    assert logits.dtype == np.float32
    assert {array.dtype for array in grads.values()} == {np.dtype(np.float32)}
    assert set(grads) == set(model.parameters())


@MODELS
def test_a_tiny_text_can_be_overfitted(config):
    ids = np.random.default_rng(3).permutation(config.vocab_size)[:8]  # what follows a token is always the same
    data = TrainingData(TokenWindows(ids, 7))
    settings = TrainSettings(steps=150, batch_size=2, learning_rate=1e-2, weight_decay=0.0, schedule="linear")
    result = fit(Decoder.create(config, seed=3), data, settings)
    assert result.history[-1].loss < 0.05


def test_a_parameter_appears_once_under_its_first_path():
    tied, untied = Decoder.create(CONFIGS["gpt2"]), Decoder.create(CONFIGS["llama"])
    assert "head.weight" not in tied.parameters()
    assert "head.weight" in untied.parameters()
    assert len({id(array) for array in tied.arrays().values()}) == len(tied.arrays())


def test_replacing_a_weight_shares_everything_else():
    model = Decoder.create(CONFIGS["gpt2"])
    path = "blocks.1.mlp.up.weight"
    other = model.replaced({path: model.weights()["blocks.0.mlp.up.weight"]})
    before, after = model.arrays(), other.arrays()
    assert [name for name in before if before[name] is not after[name]] == [path]
    assert after[path] is before["blocks.0.mlp.up.weight"]
