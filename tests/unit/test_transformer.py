"""What is particular to the Transformer: where its memory comes from and goes, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from minislm.errors import DataError, GenerationError
from minislm.layers.base import Context, Grads, Tape
from minislm.models.transformer import Transformer, TransformerConfig
from minislm.testing.batches import new_cache

CONFIG = TransformerConfig.uniform(
    vocab_size=23, d_model=12, context=9, n_layers=2, n_encoder_layers=1, n_heads=2, dropout=0.2
)
MODEL = Transformer.create(CONFIG, seed=1)
RNG = np.random.default_rng(0)
IDS, SOURCE = RNG.integers(0, 23, (2, 5)), RNG.integers(0, 23, (2, 6))
LENGTHS = np.array([4, 6])


def test_the_encoder_may_have_its_own_number_of_blocks():
    assert (len(CONFIG.encoder_layers), CONFIG.n_layers) == (1, 2)
    assert len(TransformerConfig.uniform(vocab_size=5, d_model=4, context=3, n_layers=2, n_heads=1).encoder_layers) == 2


def test_a_memory_given_is_the_one_of_the_source():
    source = Context(source_BS=SOURCE, source_lengths_B=LENGTHS)
    memory = Context(memory_BSD=MODEL.encode(SOURCE, source), source_lengths_B=LENGTHS)
    np.testing.assert_array_equal(MODEL.forward(IDS, memory), MODEL.forward(IDS, source))


def test_the_gradient_of_a_memory_that_was_given_is_left_aside():
    source = Context(source_BS=SOURCE, source_lengths_B=LENGTHS, dropout=(1, 2, 3))
    whole_tape, whole = Tape(), Grads()
    logits = MODEL.forward(IDS, source, whole_tape)
    MODEL.backward(np.ones_like(logits), whole_tape, whole)
    assert not whole.side

    context = Context(memory_BSD=MODEL.encode(SOURCE, source), source_lengths_B=LENGTHS, dropout=(1, 2, 3))
    tape, grads = Tape(), Grads()
    MODEL.backward(np.ones_like(MODEL.forward(IDS, context, tape)), tape, grads)
    assert not tape
    assert grads.side["memory"].shape == (2, 6, 12)
    assert not grads.side["memory"][0, 4:].any(), "padding of a source has a gradient"
    assert {name for name in whole if name not in grads} == {name for name in whole if name.startswith("encoder.")}
    for name in grads:
        if name != "embedding.weight":  # which the encoder uses too
            np.testing.assert_array_equal(grads[name], whole[name])


def test_a_cache_that_holds_the_source_is_not_filled_again():
    cache = new_cache(MODEL, 2, 5, source_capacity=6)
    slots_B = np.arange(2)
    context = Context(cache=cache, slots_B=slots_B, source_BS=SOURCE, source_lengths_B=LENGTHS)
    MODEL.forward(IDS[:, :2], context)
    cache.advance(slots_B, np.full(2, 2))
    without = Context(cache=cache, slots_B=slots_B)
    expected = MODEL.forward(IDS[:, 2:], without)
    other = Context(cache=cache, slots_B=slots_B, source_BS=SOURCE[:, ::-1], source_lengths_B=LENGTHS)
    np.testing.assert_array_equal(MODEL.forward(IDS[:, 2:], other), expected)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"source_BS": None}, "source_missing"),
        ({"source_BS": SOURCE[:, :0]}, "empty_source"),
        ({"source_lengths_B": np.array([0, 6])}, "empty_source"),
        ({"source_BS": SOURCE[:1], "source_lengths_B": None}, "source_mismatch"),
        ({"source_BS": SOURCE + 20}, "bad_token_ids"),
        ({"source_BS": np.zeros((2, 10), int)}, "context_length_exceeded"),
    ],
)
def test_bad_sources_are_refused_by_name(changes, code):
    with pytest.raises((DataError, GenerationError)) as caught:
        MODEL.forward(IDS, Context(**{"source_BS": SOURCE, "source_lengths_B": LENGTHS, **changes}))
    assert caught.value.code == code
