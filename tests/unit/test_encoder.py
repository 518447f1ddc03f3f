"""What is particular to the encoder: heads that come and go, pooling, types, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from minislm.config import Head
from minislm.errors import ConfigError, DataError, GenerationError
from minislm.layers.base import Context, Grads, Tape
from minislm.layers.heads import IMPOSSIBLE
from minislm.models.encoder import Encoder, EncoderConfig

SIZES = {"vocab_size": 23, "d_model": 12, "context": 9, "n_layers": 2, "n_heads": 2}
WORDS, INTENT = Head("words", "masked"), Head("intent", "sequence", ("a", "b", "c"))
TAGS, ANSWER = Head("tags", "token", ("O", "B-x")), Head("answer", "span")
IDS = np.random.default_rng(0).integers(0, 23, (2, 5))


def encoder(*heads, **choices):
    return Encoder.create(EncoderConfig.uniform(**SIZES, **choices, heads=heads), seed=1)


def gradients(model, wanted, aside=None):
    """Every parameter's gradient of a loss of some heads, and perhaps of the last hidden state."""
    tape, grads = Tape(), Grads()
    said = model.forward(IDS, Context(), tape)
    rng = np.random.default_rng(3)
    dy = {name: rng.standard_normal(y.shape).astype(np.float32) for name, y in said.items()}
    if aside is not None:
        grads.aside("hidden", aside)
    model.backward({name: dy[name] for name in wanted}, tape, grads)
    assert not tape
    return grads


def test_results_have_the_shapes_that_their_kinds_promise():
    said = encoder(WORDS, INTENT, TAGS, ANSWER).forward(IDS)
    assert {name: y.shape for name, y in said.items()} == {
        "words": (2, 5, 23),
        "intent": (2, 3),
        "tags": (2, 5, 2),
        "answer": (2, 2, 5),
    }
    assert encoder().forward(IDS) == {}


@pytest.mark.parametrize("left_out", ["words", "intent", "tags", "answer"])
def test_a_head_without_a_gradient_has_no_part_in_backward(left_out):
    heads = WORDS, INTENT, TAGS, ANSWER
    wanted = [head.name for head in heads if head.name != left_out]
    grads = gradients(encoder(*heads), wanted)
    assert not [name for name in grads if name.startswith(f"heads.{left_out}.")]
    assert ("pooler.weight" in grads) == (left_out != "intent")
    assert all(any(name.startswith(f"heads.{head}.") for name in grads) for head in wanted)


def test_gradients_of_heads_and_of_the_last_hidden_state_add_up():
    model = encoder(INTENT, TAGS)
    dh = np.random.default_rng(4).standard_normal((2, 5, 12)).astype(np.float32)
    parts = gradients(model, ["intent"]), gradients(model, ["tags"]), gradients(model, [], dh)
    for name, both in gradients(model, ["intent", "tags"], dh).items():
        expected = sum(part.get(name, 0.0) for part in parts)
        np.testing.assert_allclose(both, expected, rtol=1e-3, atol=1e-7)


def test_no_gradient_at_all_is_a_gradient_of_zeros():
    grads = gradients(encoder(INTENT, TAGS), [])
    assert "embedding.weight" in grads
    assert not any(array.any() for array in grads.values())


def test_new_heads_share_everything_else():
    before = encoder(WORDS, INTENT)
    after = before.with_heads([TAGS, INTENT], seed=5)
    ours, theirs = before.arrays(), after.arrays()
    assert [head.name for head in after.config.heads] == ["tags", "intent"]
    assert all(theirs[name] is ours[name] for name in theirs if not name.startswith("heads.tags."))
    assert not any(name.startswith("heads.words.") for name in theirs)
    np.testing.assert_array_equal(after.forward(IDS)["intent"], before.forward(IDS)["intent"])
    np.testing.assert_array_equal(
        before.with_heads([TAGS, INTENT], seed=5).forward(IDS)["tags"], after.forward(IDS)["tags"]
    )
    other = before.with_heads([TAGS], seed=6)
    assert not np.array_equal(other.forward(IDS)["tags"], after.forward(IDS)["tags"])


def test_a_head_of_another_definition_begins_anew():
    before = encoder(INTENT)
    after = before.with_heads([Head("intent", "sequence", ("a", "c", "b"))])
    assert after.arrays()["heads.intent.output.weight"] is not before.arrays()["heads.intent.output.weight"]


def test_a_masked_head_that_comes_later_is_tied_to_the_table():
    model = encoder().with_heads([WORDS])
    changed = model.with_arrays({"embedding.weight": 2 * model.arrays()["embedding.weight"]})
    assert changed.heads[0].embedding.weight is changed.embedding.weight
    assert model.n_parameters == sum(array.size for array in model.arrays().values())


@pytest.mark.parametrize("pooler", [False, True])
def test_pooling_takes_the_first_position_or_the_mean_without_padding(pooler):
    context = Context(lengths_B=np.array([2, 5]))
    for pooling in ("first", "mean"):
        model = encoder(pooling=pooling, pooler=pooler)
        h = model.hidden(IDS, context)
        expected = h[:, 0] if pooling == "first" else np.stack([h[0, :2].mean(0), h[1].mean(0)])
        if pooler:
            arrays = model.arrays()
            expected = np.tanh(expected @ arrays["pooler.weight"].T + arrays["pooler.bias"])
        np.testing.assert_allclose(model.pooled(h, context), expected, atol=1e-6)


def test_no_answer_lies_in_padding():
    logits = encoder(ANSWER).forward(IDS, Context(lengths_B=np.array([2, 5])))["answer"]
    assert (logits[0, :, 2:] == IMPOSSIBLE).all()
    assert (logits[0, :, :2] > IMPOSSIBLE).all()
    assert (logits[1] > IMPOSSIBLE).all()


def test_types_default_to_the_first_text():
    model = encoder(INTENT)
    zeros = Context(types_BT=np.zeros_like(IDS))
    np.testing.assert_array_equal(model.forward(IDS)["intent"], model.forward(IDS, zeros)["intent"])
    ones = Context(types_BT=np.ones_like(IDS))
    assert not np.array_equal(model.forward(IDS)["intent"], model.forward(IDS, ones)["intent"])


@pytest.mark.parametrize(
    ("types", "ids", "code"),
    [
        (np.full((2, 5), 2), IDS, "bad_token_types"),
        (np.full((2, 5), -1), IDS, "bad_token_types"),
        (np.zeros((2, 4), int), IDS, "bad_token_types"),
        (np.zeros((2, 5)), IDS, "bad_token_types"),
        (None, IDS[:, :0], "empty_text"),
        (None, IDS + 20, "bad_token_ids"),
        (None, np.zeros((2, 10), int), "context_length_exceeded"),
    ],
)
def test_bad_input_is_refused_by_name(types, ids, code):
    with pytest.raises((DataError, GenerationError)) as caught:
        encoder(INTENT).forward(ids, Context(types_BT=types))
    assert caught.value.code == code


def test_two_heads_cannot_have_one_name():
    with pytest.raises(ConfigError, match="intent"):
        encoder(INTENT).with_heads([INTENT, Head("intent", "span")])
