"""Programs kept between calls: each call has its own, equal to a new one, and what fails leaves nothing behind."""

import copy
import gc
import multiprocessing
import os
import threading
import weakref

import numpy as np
import pytest

from minislm.config import Head
from minislm.dispatch import backend
from minislm.errors import DataError
from minislm.inference import program as programs
from minislm.inference.decoding import Stream
from minislm.inference.reading import read
from minislm.inference.spares import MOST, Spares
from minislm.language_model import WRITES, LanguageModel
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.models.encoder import Encoder, EncoderConfig
from minislm.models.transformer import Transformer, TransformerConfig
from minislm.text.tokenizer import Encoded, Tokenizer

SIZES = {"vocab_size": 257, "d_model": 32, "context": 90, "n_layers": 2, "n_heads": 2, "d_ff": 64}
GREEDY = {"temperature": 0.0, "max_new_tokens": 30, "ignore_eos": True}
PROMPTS = [[1, 2, 3], [7] * 40, [1, 2, 3], [9, 8], list(range(50))]


@pytest.fixture
def lm():
    return LanguageModel(Decoder.create(DecoderConfig.uniform(**SIZES), seed=1), Tokenizer.train([], kind="bytes"))


def fresh(lm, prompts=PROMPTS, **options):
    """What models that were never called before say to the prompts."""
    return [copy.deepcopy(lm).generate(prompt, **GREEDY, **options).ids for prompt in prompts]


def waiting(lm):
    return [program for programs in lm.spares._waiting.values() for program in programs]


@pytest.mark.parametrize("n_beams", [1, 3])
@pytest.mark.parametrize("cache", ["float32", "int8"])
def test_a_later_call_takes_the_same_program_and_says_what_a_new_one_says(lm, n_beams, cache):
    options = {"n_beams": n_beams, "cache": cache}
    assert [lm.generate(prompt, **GREEDY, **options).ids for prompt in PROMPTS] == fresh(lm, **options)
    (program,) = waiting(lm)
    kept = program._cache
    assert lm.generate(PROMPTS[0], **GREEDY, **options).ids == fresh(lm, PROMPTS[:1], **options)[0]
    assert waiting(lm) == [program]
    assert program._cache is kept
    assert kept.is_free


def test_another_kind_or_size_of_cache_is_made(lm):
    lm.generate([1], **GREEDY)
    first = waiting(lm)[0]._cache
    lm.generate([1], **GREEDY, cache="float16")
    second = waiting(lm)[0]._cache
    assert second is not first
    assert second.k_layers[0].array.dtype == np.float16
    lm.generate_batch([[1], [2]], **GREEDY, cache="float16")
    assert waiting(lm)[0]._cache.n_slots == 2


def test_large_caches_are_not_kept(lm, monkeypatch):
    monkeypatch.setattr(programs, "KEPT_BYTES", 1000)
    lm.generate([1], **GREEDY)
    assert waiting(lm)[0]._cache is None


def test_calls_at_once_have_programs_of_their_own(lm):
    found, expected = {}, fresh(lm)

    def call(number):
        found[number] = [lm.generate(prompt, **GREEDY).ids for prompt in PROMPTS]

    callers = [threading.Thread(target=call, args=(number,)) for number in range(MOST + 2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all(found[number] == expected for number in range(MOST + 2))
    assert 1 <= len(waiting(lm)) <= MOST
    assert len({id(program) for program in waiting(lm)}) == len(waiting(lm))


def test_streams_give_back_when_they_end(lm):
    first, second = lm.stream([1, 2, 3], **GREEDY), lm.stream([7] * 40, **GREEDY)  # taken turns with
    for _ in zip(first, second, strict=False):
        pass
    assert [first.result.ids, second.result.ids] == fresh(lm, PROMPTS[:2])
    assert len(waiting(lm)) == 2
    broken_off = lm.stream([1, 2, 3], **GREEDY)
    next(broken_off, None)
    del broken_off
    assert len(waiting(lm)) == 1
    assert lm.generate([1, 2, 3], **GREEDY).ids == fresh(lm, PROMPTS[:1])[0]


def test_a_cache_in_use_is_not_lent_again(lm):
    program, settings = lm.program(), lm.settings.replaced(**GREEDY)
    first, second = (Stream(program, lm.tokenizer, prompt, settings) for prompt in PROMPTS[:2])
    for _ in zip(first, second, strict=False):
        pass
    assert [first.result.ids, second.result.ids] == fresh(lm, PROMPTS[:2])


def test_a_call_that_fails_leaves_nothing_behind(lm):
    with pytest.raises(DataError):
        lm.generate([1, 2, 999], **GREEDY)
    assert waiting(lm) == []
    assert lm.generate([1, 2, 3], **GREEDY).ids == fresh(lm, PROMPTS[:1])[0]


def test_other_tiers_lower_programs_of_their_own(lm):
    found = lm.generate([1, 2, 3], **GREEDY).ids
    with backend("numpy"):
        assert lm.generate([1, 2, 3], **GREEDY).ids == found
    assert lm.generate([1, 2, 3], **GREEDY).ids == found


def test_encoders_and_encoder_decoders_keep_programs_too():
    tokenizer = Tokenizer.train([], kind="bytes")
    heads = (Head("intent", "sequence", ("a", "b")),)
    encoder = LanguageModel(Encoder.create(EncoderConfig.uniform(**SIZES, heads=heads), seed=1), tokenizer)
    texts = [Encoded(list(ids), [0] * len(ids), None) for ids in ([5, 6, 7], [5, 6, 7], [9, 1], [5, 6, 7])]
    for result in ("hidden", "intent"):
        for text in texts:
            assert np.array_equal(read(encoder, [text], result)[0], read(copy.deepcopy(encoder), [text], result)[0])
    assert len(waiting(encoder)) == 2
    both = LanguageModel(Transformer.create(TransformerConfig.uniform(**SIZES), seed=1), tokenizer)
    assert [both.generate(prompt, **GREEDY).ids for prompt in PROMPTS] == fresh(both)
    assert len(waiting(both)) == 2


def test_copies_and_new_models_begin_with_nothing_and_memory_is_released(lm):
    lm.generate([1], **GREEDY)
    assert waiting(copy.deepcopy(lm)) == []
    program = weakref.ref(waiting(lm)[0])
    lm.spares.forget()
    gc.collect()
    assert program() is None
    assert isinstance(lm.spares, Spares)
    assert lm.spares.take(WRITES, lm.program).config is lm.model.config


def _in_a_child(lm, expected):
    os._exit(0 if lm.generate([1, 2, 3], **GREEDY).ids == expected else 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_goes_on_with_what_its_parent_kept(lm):
    expected = lm.generate([1, 2, 3], **GREEDY).ids
    assert all(lm.generate([1, 2, 3], **GREEDY).ids == expected for _ in range(3))
    child = multiprocessing.get_context("fork").Process(target=_in_a_child, args=(lm, expected))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert lm.generate([1, 2, 3], **GREEDY).ids == expected
