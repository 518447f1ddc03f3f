"""Any text comes back from its tokens, and a stream of tokens decodes to the text of all of them."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minislm.text.tokenizer import Tokenizer

KINDS = ("bpe", "bytes")
SAMPLE = "größer als 水 and 👩‍👩‍👧 the for statement <|endoftext|> " * 3


@cache
def tokenizer(kind):
    return Tokenizer.train([SAMPLE], 290 if kind == "bpe" else None, kind=kind)


def any_text():
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.text("aé水👧\n <|>", max_size=60)


def streamed(made, ids):
    stream = made.text_stream()
    return [*map(stream.push, ids), stream.finish()]


@pytest.mark.parametrize("kind", KINDS)
@given(text=any_text())
def test_text_round_trip(kind, text):
    made = tokenizer(kind)
    assert made.decode(made.encode(text)) == text
    assert "".join(streamed(made, made.encode(text))) == text


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_character_round_trip(text):
    made = Tokenizer.train([text], kind="characters")
    assert made.vocab_size == len(set(text))
    assert made.decode(made.encode(text)) == text
    assert streamed(made, made.encode(text))[:-1] == list(text) or "\ufffd" in text


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_stream_equals_decode(kind, data):
    made = tokenizer(kind)
    ids = data.draw(st.lists(st.integers(0, made.vocab_size - 1), max_size=40))
    assert "".join(streamed(made, ids)) == made.decode(ids)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_no_piece_ends_inside_a_character(kind, data):
    made = tokenizer(kind)
    text = data.draw(st.text("aé水👧 ", max_size=20))
    ids = made.encode(text)
    for n in range(len(ids) + 1):
        stream = made.text_stream()
        given_out = "".join(map(stream.push, ids[:n]))
        assert text.startswith(given_out)
        assert given_out + stream.finish() == made.decode(ids[:n])
