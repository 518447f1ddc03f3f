"""The law of lowering, for every architecture, storage and expression: a Program gives what forward gives."""

from __future__ import annotations

import numpy as np
import pytest
from test_models import DECODERS, MODELS, created

from minislm.models.decoder import DecoderConfig
from minislm.testing.programs import check_program_equals_forward
from minislm.testing.replays import check_replays
from minislm.testing.samples import EXPRESSIONS, sample_expression, sample_weights
from minislm.testing.weights import is_linear
from minislm.weights import WEIGHTS

# Where activations are rounded, one product in another order may move a code by one step of 1/127.
ROUNDED = 0.05
# Products of random matrices are badly conditioned: another order of the same float32 sums moves logits by up to 2e-5.
EXPRESSION = 1e-4


@MODELS
def test_every_architecture(config):
    check_program_equals_forward(created(config))
    check_replays(created(config))


# Blocks of 16 outputs fit here, and in none of the odd sizes of the other.
EVEN = DecoderConfig.uniform(vocab_size=23, d_model=32, context=9, n_layers=2, n_heads=2, d_ff=48)


def check_stored(drawn, bound=1e-5):
    """Check a model all of whose matrices, where the shape allows, are stored as `drawn(O, I)` says."""
    odd = drawn(3, 5).shape == (3, 5)
    model = created(DECODERS["gpt2"] if odd else EVEN)
    found = {path: drawn(*weight.shape) for path, weight in model.weights().items()}
    stored = {path: weight for path, weight in found.items() if weight.shape == model.weights()[path].shape}
    assert stored
    linear = all(map(is_linear, stored.values()))
    check_program_equals_forward(model.replaced(stored), n_positions=5, bound=bound if linear else ROUNDED)
    check_replays(model.replaced(stored))


@pytest.mark.parametrize("storage", WEIGHTS)
def test_every_storage(storage):
    rng = np.random.default_rng(3)
    for variant in range(len(sample_weights(storage, rng, 4, 4, np.float32))):
        check_stored(lambda o, i, n=variant: sample_weights(storage, rng, o, i, np.float32)[n])


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_expression(name):
    rng = np.random.default_rng(4)
    check_stored(lambda o, i: sample_expression(name, rng, o, i, np.float32), EXPRESSION)
