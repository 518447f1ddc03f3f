"""Encoder-decoders: sources read packed, targets written together, each as it would be alone."""

import numpy as np
import pytest

from minislm.errors import DataError, GenerationError, UnsupportedError, UsageError
from minislm.inference import decoding
from minislm.inference.settings import GenerationSettings
from minislm.language_model import LanguageModel
from minislm.layers.base import Context
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.models.transformer import Transformer, TransformerConfig
from minislm.text.tokenizer import Tokenizer

BYTES = Tokenizer.train([], kind="bytes")
EOS = BYTES.eos_id
SOURCES = ["lunch with Ana", "é", "x" * 24, "noon", [1, 2, 3], "lunch with Ana"]
GREEDY = {"temperature": 0.0, "max_new_tokens": 8}


@pytest.fixture(scope="module")
def lm():
    config = TransformerConfig.uniform(vocab_size=260, d_model=16, context=25, n_layers=2, n_heads=2)
    model = Transformer.create(config, seed=1)
    rng = np.random.default_rng(2)
    arrays = model.arrays().items()
    noisy = {name: array + 0.2 * rng.standard_normal(array.shape).astype(np.float32) for name, array in arrays}
    return LanguageModel(model.with_arrays(noisy), BYTES)


def outcomes(results):
    return [(result.ids, result.stopped) for result in results]


def by_forward(lm, source, n_new):
    """Write greedily with the full forward of the whole model, a token at a time."""
    ids = [EOS]
    for _ in range(n_new):
        logits = lm.model.forward(np.array([ids]), Context(source_BS=np.array([source])))[0, -1]
        ids.append(int(logits[: BYTES.vocab_size].argmax()))
    return ids[1:]


def test_greedy_takes_the_most_likely_token_of_the_full_forward(lm):
    results = lm.generate_batch(SOURCES, **GREEDY, ignore_eos=True)
    for source, result in zip(SOURCES, results, strict=True):
        ids = [*BYTES.encode(source), EOS] if isinstance(source, str) else source
        assert result.ids == by_forward(lm, ids, 8)
        assert result.prompt_tokens == len(ids)
    assert len({tuple(result.ids) for result in results}) > 1  # the source counts


@pytest.mark.parametrize("n_slots", [1, 3, 64])
@pytest.mark.parametrize("options", [GREEDY, {**GREEDY, "temperature": 1.0}, {**GREEDY, "n_beams": 3}])
def test_a_batch_equals_its_sources_alone(lm, n_slots, options, monkeypatch):
    monkeypatch.setattr(decoding, "SLOTS", n_slots)
    monkeypatch.setattr(decoding, "PROMPT_CHUNK", 20)
    together = outcomes(lm.generate_batch(SOURCES, **options))
    assert together == [outcomes([lm.generate(source, **options)])[0] for source in SOURCES]
    assert together[0] == together[5]


@pytest.mark.parametrize("chunk", [1, 30, 256])
def test_chunks_change_nothing(lm, chunk):
    program, source = lm._taken()
    settings = GenerationSettings(**GREEDY)
    results = decoding.generate(program, BYTES, SOURCES, settings, source=source, prompt_chunk=chunk)
    assert outcomes(results) == outcomes(lm.generate_batch(SOURCES, **GREEDY))


def test_a_stream_equals_generate(lm):
    stream = lm.stream("lunch", temperature=1.0, seed=5, max_new_tokens=20)
    pieces = list(stream)
    assert (
        "".join(pieces) == stream.result.text == lm.generate("lunch", temperature=1.0, seed=5, max_new_tokens=20).text
    )
    assert len(pieces) > 1


def test_the_context_ends_a_target(lm):
    result = lm.generate("noon", temperature=0.0, max_new_tokens=100, ignore_eos=True)
    assert (result.stopped, len(result.ids)) == ("context", 25)


def test_translate_searches_with_beams_unless_told(lm):
    found = lm.translate(["noon", "lunch"], max_new_tokens=5)
    assert outcomes(found) == outcomes(
        lm.generate_batch(["noon", "lunch"], temperature=0.0, n_beams=4, max_new_tokens=5)
    )
    assert all(one.score < 0 for one in found)
    assert lm.translate(["noon"], n_beams=1, max_new_tokens=5)[0].score is None
    longer = lm.summarize(["noon"], max_new_tokens=5)[0]
    assert outcomes([longer]) == outcomes(lm.translate(["noon"], length_penalty=2.0, max_new_tokens=5))
    assert lm.translate([]) == []


def test_timings_count_sources_and_every_token(lm):
    timings = lm.generate_batch(SOURCES, **GREEDY, ignore_eos=True)[0].timings
    assert timings.prompt_tokens == sum(len(BYTES.encode(s)) + 1 if isinstance(s, str) else len(s) for s in SOURCES)
    assert timings.new_tokens == 8 * len(SOURCES)
    assert timings.generation_passes_tokens == 7 * len(SOURCES)


@pytest.mark.parametrize(
    ("use", "error", "code"),
    [
        (lambda lm: lm.translate(["a", ""]), GenerationError, "empty_source"),
        (lambda lm: lm.translate([[]]), GenerationError, "empty_source"),
        (lambda lm: lm.translate(["x" * 25]), GenerationError, "context_length_exceeded"),
        (lambda lm: lm.translate([[260]]), DataError, "bad_token_ids"),
        (lambda lm: lm.translate("noon"), UsageError, "bad_texts"),
        (lambda lm: lm.translate(["noon"], temperature=0.5), UsageError, "bad_generation_setting"),
        (lambda lm: lm.classify(["noon"]), UnsupportedError, "not_an_encoder"),
        (lambda lm: lm.embed(["noon"]), UnsupportedError, "not_an_encoder"),
        (lambda lm: lm.logits([1, 2]), UsageError, "bad_option"),
        (lambda lm: lm.logits([[1, 2]], decoder_ids=[[1], [2]]), DataError, "source_mismatch"),
    ],
)
def test_what_cannot_be_asked(lm, use, error, code):
    lm.translate(["x" * 24], max_new_tokens=1)  # 25 with its end: just fits
    with pytest.raises(error) as caught:
        use(lm)
    assert caught.value.code == code


def test_no_end_of_text_no_beginning():
    letters = Tokenizer.train(["abc"], kind="characters")
    config = TransformerConfig.uniform(vocab_size=3, d_model=8, context=9, n_layers=1, n_heads=1)
    with pytest.raises(GenerationError) as caught:
        LanguageModel(Transformer.create(config), letters).translate(["ab"])
    assert caught.value.code == "empty_prompt"


def test_decoders_do_not_translate():
    model = Decoder.create(DecoderConfig.uniform(vocab_size=257, d_model=8, context=9, n_layers=1, n_heads=1))
    decoder = LanguageModel(model, BYTES)
    for use in (lambda: decoder.translate(["a"]), lambda: decoder.summarize(["a"])):
        with pytest.raises(UnsupportedError, match="'decoder'") as caught:
            use()
        assert caught.value.code == "not_an_encoder_decoder"
    with pytest.raises(UsageError, match="decoder_ids"):
        decoder.logits([1], decoder_ids=[2])


def test_logits_and_hidden_states_of_both_sides(lm):
    source, target = np.array([[1, 2, 3], [4, 5, 0]]), np.array([[EOS, 7], [EOS, 8]])
    mask = np.array([[True] * 3, [True, True, False]])
    logits = lm.logits(source, mask, target)
    assert logits.shape == (2, 2, 260)
    np.testing.assert_allclose(logits[1], lm.logits([4, 5], decoder_ids=[EOS, 8]), rtol=1e-4, atol=1e-5)
    hidden = lm.encode(source, mask)
    assert hidden.shape == (2, 3, 16)
    np.testing.assert_allclose(hidden[1, :2], lm.encode([4, 5]), rtol=1e-4, atol=1e-5)
