"""Beam search: exhaustive where the beams hold everything, alone in a batch, and its refusals."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from minislm.errors import GenerationError, UsageError
from minislm.inference import decoding
from minislm.inference.decoding import Stream, generate
from minislm.inference.program import Program
from minislm.inference.settings import GenerationSettings
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.ops.softmax import log_softmax
from minislm.text.tokenizer import Tokenizer

LETTERS = Tokenizer.train(["abcde"], kind="characters")
BYTES = Tokenizer.train([], kind="bytes")
BEAMS = GenerationSettings(temperature=0.0, n_beams=4, max_new_tokens=6)


def noisy(config, seed=1):
    model = Decoder.create(config, seed=seed)
    rng = np.random.default_rng(seed)
    arrays = model.arrays().items()
    return model.with_arrays({n: a + 0.4 * rng.standard_normal(a.shape).astype(np.float32) for n, a in arrays})


def config(vocab_size, **sizes):
    return DecoderConfig.uniform(
        vocab_size=vocab_size, d_model=16, n_layers=2, n_heads=2, **{"context": 40, **sizes}, positions="rotary"
    )


@pytest.fixture(scope="module")
def program():
    return Program.of(noisy(config(257)))


def outcomes(results):
    return [(result.ids, result.stopped, result.score) for result in results]


@pytest.mark.parametrize("seed", range(3))
def test_beams_that_hold_everything_find_the_likeliest_text(seed):
    model = noisy(config(5), seed)
    settings = BEAMS.replaced(n_beams=125, max_new_tokens=4, length_penalty=0.0)
    result = generate(Program.of(model), LETTERS, ["ab"], settings)[0]
    texts = np.array([(0, 1, *new) for new in itertools.product(range(5), repeat=4)])
    log_p = log_softmax(model.forward(texts[:, :-1]).reshape(-1, 5)).reshape(len(texts), -1, 5)
    scores = np.take_along_axis(log_p[:, 1:], texts[:, 2:, None], axis=2)[..., 0].sum(axis=1)
    assert result.ids == texts[scores.argmax(), 2:].tolist()
    assert result.score == pytest.approx(scores.max(), abs=1e-5)
    assert (result.text, result.stopped) == (LETTERS.decode(result.ids), "length")


@pytest.mark.parametrize("slots", [1, 8, 64])
def test_a_batch_equals_its_prompts_alone(program, slots, monkeypatch):
    monkeypatch.setattr(decoding, "SLOTS", slots)
    prompts = ["The for statement", "é", "", "x" * 37, [1, 2, 3], "The for statement"]
    together = generate(program, BYTES, prompts, BEAMS)
    alone = [generate(program, BYTES, [prompt], BEAMS)[0] for prompt in prompts]
    for (ids, stopped, score), (alone_ids, alone_stopped, alone_score) in zip(
        outcomes(together), outcomes(alone), strict=True
    ):
        assert (ids, stopped) == (alone_ids, alone_stopped)
        assert score == pytest.approx(alone_score, abs=1e-5)
    assert {result.stopped for result in together} >= {"length", "context"}


@pytest.mark.parametrize("seed", range(3))
def test_a_longer_text_is_preferred_the_more_the_length_penalty_is(seed):
    tokenizer = SimpleNamespace(eos_id=5, vocab_size=6, decode=str, target=None)
    program = Program.of(noisy(config(6, context=12), seed))
    lengths = [
        len(generate(program, tokenizer, [[0, 1]], BEAMS.replaced(length_penalty=penalty, n_beams=20))[0].ids)
        for penalty in (-3.0, 0.0, 1.0, 5.0)
    ]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


def test_more_beams_than_tokens(program):
    result = generate(Program.of(noisy(config(5))), LETTERS, ["a"], BEAMS.replaced(n_beams=11, max_new_tokens=3))[0]
    assert len(result.ids) == 3


def test_no_new_tokens():
    result = generate(Program.of(noisy(config(5))), LETTERS, ["a"], BEAMS.replaced(max_new_tokens=0))[0]
    assert outcomes([result]) == [([], "length", 0.0)]


def test_a_stream_gives_the_text_at_the_end(program):
    stream = Stream(program, BYTES, "The", BEAMS)
    assert [piece for piece in stream if piece] == [stream.result.text]
    assert stream.result.ids == generate(program, BYTES, ["The"], BEAMS)[0].ids


def test_a_damaged_model_is_an_error():
    model = noisy(config(5))
    damaged = model.with_arrays({"final_norm.weight": np.full(16, np.nan, np.float32)})
    with pytest.raises(GenerationError) as caught:
        generate(Program.of(damaged), LETTERS, ["a"], BEAMS)
    assert caught.value.code == "logits_not_finite"


@pytest.mark.parametrize(
    "options",
    [
        {"n_beams": 0},
        {"n_beams": 1.5},
        {"n_beams": True},
        {"n_beams": 2},  # with the default temperature
        {"n_beams": 2, "temperature": 0.0, "stop": ["x"]},
        {"length_penalty": float("nan")},
        {"length_penalty": float("inf")},
        {"length_penalty": "long"},
    ],
)
def test_impossible_searches_are_refused(options):
    with pytest.raises(UsageError) as caught:
        GenerationSettings(**options)
    assert caught.value.code == "bad_generation_setting"


def test_of_two_settings_that_beams_need_the_wrong_one_is_told():
    with pytest.raises(UsageError, match=r"whole text: stop must be empty, not \('x',\); or set n_beams to 1$"):
        GenerationSettings(n_beams=2, temperature=0.0, stop=("x",))
    with pytest.raises(UsageError, match=r"whole text: temperature must be 0, not 0\.5; or"):
        GenerationSettings(n_beams=2, temperature=0.5)
