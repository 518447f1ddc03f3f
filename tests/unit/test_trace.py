"""Traces: what every layer saved in one pass, of decoders and encoders."""

import numpy as np
import pytest
from small_models import FAMILIES, HEADS, small_model

import minislm
from minislm.errors import GenerationError, UnsupportedError
from minislm.language_model import LanguageModel
from minislm.models.decoder import Decoder
from minislm.models.encoder import Encoder
from minislm.text.tokenizer import Tokenizer

DECODERS = [family for family in FAMILIES if FAMILIES[family][0] is Decoder]
ENCODERS = [family for family in FAMILIES if FAMILIES[family][0] is Encoder]


def made(family):
    words = Tokenizer.train([], kind="bytes", encoder=family in ENCODERS)
    return LanguageModel(small_model(family, vocab_size=words.vocab_size), words)


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_opened_up(family):
    lm = made(family)
    found = minislm.trace(lm, "a cat")
    assert found.ids.tolist() == list(b"a cat")
    assert found.tokens == tuple("a cat")
    np.testing.assert_array_equal(found.logits, lm.logits(found.ids))
    p_HTS = found.attention(1)
    assert p_HTS.shape == (4, 5, 5)
    np.testing.assert_allclose(p_HTS.sum(axis=-1), 1.0, rtol=1e-5)
    assert not np.triu(p_HTS, 1).any()
    assert (np.tril(p_HTS) > 0).sum() == 4 * 15
    assert not np.allclose(p_HTS, found.attention(0))


@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_opened_up(family):
    lm = made(family)
    found = minislm.trace(lm, "a cat")
    assert found.tokens == ("[CLS]", *"a cat", "[SEP]")
    said = lm.logits(found.ids)
    assert found.logits.keys() == said.keys() == {head.name for head in HEADS}
    for name, y in said.items():
        np.testing.assert_array_equal(found.logits[name], y)
    p_HTS = found.attention(1)
    assert p_HTS.shape == (4, 7, 7)
    assert (p_HTS > 0).all()
    np.testing.assert_allclose(p_HTS.sum(axis=-1), 1.0, rtol=1e-5)


def test_what_cannot_be_traced_is_refused():
    with pytest.raises(UnsupportedError) as caught:
        minislm.trace(made("transformer"), "a cat")
    assert caught.value.code == "cannot_trace"
    with pytest.raises(UnsupportedError, match=r"blocks\.0\.attention") as caught:
        minislm.trace(made("gpt2"), "a").attention(2)
    assert caught.value.code == "unknown_layer"
    with pytest.raises(GenerationError) as caught:
        minislm.trace(made("gpt2"), "a" * 9)
    assert caught.value.code == "context_length_exceeded"
