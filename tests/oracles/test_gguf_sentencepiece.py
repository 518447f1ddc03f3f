"""Tokenizers of the kind "llama" out of GGUF settings against the sentencepiece library."""

from __future__ import annotations

import io
from pydoc_data.topics import topics

import numpy as np
import pytest
import tokenizers

from minislm.errors import UnsupportedError
from minislm.files.gguf_tokenizer import tokenizer_of

sentencepiece = pytest.importorskip("sentencepiece")
pytestmark = pytest.mark.oracle

WORDS = (
    "the", "The", "statement", "iterate", "over", "sequence", " ", "  ", "   ", "\n", "\t", "x", "1", "2024", "...",
    "!?", "'s", "größer", "naïve", "水", "한국어", "\u00a0", "\U0001f469\u200d\U0001f467", "<s>", "</s>", "<0x41>",
    "▁", "aaaa",
)  # fmt: skip


@pytest.fixture(scope="module")
def processor():
    return trained()


def trained():
    """Train pairs as LLaMA's were: nothing normalized, bytes for what is unknown, digits alone, a space in front."""
    lines = [line for name in ("for", "numbers", "strings") for line in topics[name].splitlines() if line]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=900,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def settings_of(processor, **others):
    """Say a tokenizer as llama.cpp's converter does."""
    numbers = range(processor.get_piece_size())

    def kind(number):
        tests = {2: processor.is_unknown, 3: processor.is_control, 5: processor.is_unused, 6: processor.is_byte}
        return next((kind for kind, test in tests.items() if test(number)), 1)

    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [processor.id_to_piece(number) for number in numbers],
        "tokenizer.ggml.scores": np.array([processor.get_score(number) for number in numbers], np.float32),
        "tokenizer.ggml.token_type": np.array([kind(number) for number in numbers], np.int32),
        "tokenizer.ggml.bos_token_id": processor.bos_id(),
        "tokenizer.ggml.eos_token_id": processor.eos_id(),
        "tokenizer.ggml.unknown_token_id": processor.unk_id(),
        **others,
    }


def some_texts(rng, count=500):
    texts = ["", " ", "\n", "a", "  the"]
    while len(texts) < count:
        parts = [
            WORDS[rng.integers(len(WORDS))] if rng.random() < 0.8 else chr(int(rng.integers(0x21, 0xD7FF)))
            for _ in range(rng.integers(1, 10))
        ]
        texts.append("".join(parts))
    return texts


def check_same(processor, settings, rng):
    inner = tokenizers.Tokenizer.from_str(tokenizer_of(settings, "m.gguf").text)
    inner.encode_special_tokens = True
    for text in some_texts(rng):
        expected = processor.encode(text)
        found = inner.encode(text).ids
        assert found == [processor.bos_id(), *expected], text
        assert inner.decode(found[1:]) == processor.decode(expected)


def test_ids_are_those_of_the_library(processor, rng):
    check_same(processor, settings_of(processor), rng)


@pytest.mark.parametrize("fault", ["scores", "bytes"])
def test_a_planted_fault_is_caught(processor, rng, fault):
    settings = settings_of(processor)
    if fault == "scores":
        settings["tokenizer.ggml.scores"] = -settings["tokenizer.ggml.scores"]
    else:
        settings["tokenizer.ggml.token_type"] = np.where(settings["tokenizer.ggml.token_type"] == 6, 1, 1)
    with pytest.raises(AssertionError):
        check_same(processor, settings, rng)


def test_a_text_gets_a_space_before_it_unless_the_file_says_no(processor):
    settings = settings_of(
        processor, **{"tokenizer.ggml.add_space_prefix": False, "tokenizer.ggml.add_bos_token": False}
    )
    inner = tokenizers.Tokenizer.from_str(tokenizer_of(settings, "m.gguf").text)
    assert inner.encode(" the").ids == processor.encode("the")
    assert inner.encode("the").ids != processor.encode("the")
    assert inner.decode(inner.encode(" the").ids) == " the"


def test_tokens_too_long_to_be_cut_everywhere_are_refused(processor):
    settings = settings_of(processor)
    settings["tokenizer.ggml.tokens"][300] = "x" * 10**6
    with pytest.raises(UnsupportedError) as caught:
        tokenizer_of(settings, "m.gguf")
    assert caught.value.code == "unsupported_tokenizer"


def test_text_that_loses_spaces_is_refused(processor):
    settings = settings_of(processor, **{"tokenizer.ggml.remove_extra_whitespaces": True})
    with pytest.raises(UnsupportedError) as caught:
        tokenizer_of(settings, "m.gguf")
    assert caught.value.code == "unsupported_tokenizer"
