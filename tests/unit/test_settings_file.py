"""Generation settings as Hugging Face's files have them, and what they ask of writers."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pytest

from minislm import language_model
from minislm.errors import GenerationError, ModelFileError, UnsupportedError, UsageError
from minislm.inference.beam import BeamSearch
from minislm.inference.generation import Request
from minislm.inference.sampling import repeating
from minislm.inference.settings import GenerationSettings
from minislm.inference.settings_file import read_settings, write_settings
from minislm.inference.writing import Sampler
from minislm.language_model import LanguageModel
from minislm.text.tokenizer import Tokenizer
from tests.unit.small_models import small_model

OPUS = {
    "bad_words_ids": [[58100]],
    "decoder_start_token_id": 58100,
    "eos_token_id": 0,
    "forced_eos_token_id": 0,
    "max_length": 512,
    "num_beams": 4,
    "renormalize_logits": True,
}


def test_opus_is_read_as_it_says():
    found = read_settings(OPUS, {}, 0, apart=True)
    assert found == GenerationSettings(
        temperature=0.0,
        max_new_tokens=511,
        n_beams=4,
        renormalize=True,
        start_id=58100,
        last_id=0,
        banned_ids=(58100,),
        top_k=50,
    )


def test_ids_of_older_folders_stand_in_config_json():
    config = {"decoder_start_token_id": 5, "eos_token_id": [1, 7], "vocab_size": 9, "max_length": 20, "num_beams": None}
    assert read_settings({}, config, 1, apart=True) == GenerationSettings(start_id=5, eos_ids=(1, 7))
    config = {**config, "num_beams": 6, "max_length": 512}
    expected = GenerationSettings(start_id=5, eos_ids=(1, 7), n_beams=6, temperature=0.0, max_new_tokens=511, top_k=50)
    assert read_settings({}, config, 1, apart=True) == expected
    found = read_settings({"eos_token_id": 7}, config, 1, apart=True)
    assert (found.eos_ids, found.start_id, found.n_beams) == ((7,), 5, 1)
    assert read_settings({}, config, 1, apart=False).start_id is None


def test_what_is_written_is_read_again():
    settings = GenerationSettings(
        max_new_tokens=9, temperature=0.0, n_beams=3, early_stopping="never", renormalize=True, min_new_tokens=2,
        no_repeat_ngram=3, start_id=4, eos_ids=(1, 2), first_id=6, last_id=2, banned_ids=(0, 5), seed=7,
    )  # fmt: skip
    values = json.loads(json.dumps(write_settings(settings, 1, 0)))
    assert (values["bad_words_ids"], values["eos_token_id"], values["pad_token_id"]) == ([[0], [5]], [1, 2], 0)
    assert read_settings(values, {}, 1, apart=True) == settings


@pytest.mark.parametrize(
    ("values", "error", "told"),
    [
        ({"bad_words_ids": [[1, 2]]}, UnsupportedError, "bad_words_ids holds [1, 2]"),
        ({"max_length": "long"}, ModelFileError, "max_length must be a whole number, not 'long'"),
        ({"eos_token_id": [-1]}, ModelFileError, "eos_token_id must hold token ids, not [-1]"),
        ({"forced_bos_token_id": "a"}, ModelFileError, "forced_bos_token_id must be a token id, not 'a'"),
        ({"early_stopping": "sometimes"}, ModelFileError, "early_stopping must be true, false"),
        ({"renormalize_logits": 1}, ModelFileError, "renormalize_logits must be true or false, not 1"),
        ({"stop_strings": 5}, ModelFileError, "stop_strings must be a list of strings, not 5"),
        ({"num_beams": 0}, ModelFileError, "num_beams must be a whole number in 1.."),
        ({"minislm": 3}, ModelFileError, "minislm must be an object, not 3"),
        (
            {"num_beams": 4, "do_sample": True, "temperature": 0.7},
            ModelFileError,
            "num_beams 4 searches for the likeliest",
        ),
        ({"num_beams": 4, "stop_strings": ["x"]}, ModelFileError, "num_beams 4 searches for the likeliest"),
        ({"top_k": -1, "do_sample": True}, ModelFileError, "top_k must be a whole number in 0.."),
    ],
)
def test_nonsense_is_refused_by_the_name_of_its_field(values, error, told):
    values = {**values, "decoder_start_token_id": 3}
    found = read_settings(values, {}, None, apart=True, folder="a")
    place = os.path.join("a", "generation_config.json")
    with pytest.raises(
        error, match=f"^{re.escape(f'{place}: {told}')}.*; mend the file, or give other values"
    ) as caught:
        found.replaced(seed=1)
    assert caught.value.code in ("config_invalid", "unsupported_config")
    assert found.start_id == 3  # training begins with it
    assert write_settings(found, 1, 0) == values
    with pytest.raises(UsageError, match=r"^top_p must be"):
        found.replaced(top_p=5)


@pytest.mark.parametrize(
    ("values", "changes", "expected"),
    [
        ({"do_sample": True}, {}, {"temperature": 1.0, "top_k": 50}),
        ({"do_sample": True, "top_k": None, "top_p": 0.9}, {}, {"temperature": 1.0, "top_k": 50, "top_p": 0.9}),
        ({"do_sample": True, "temperature": 0.6, "top_k": 0}, {}, {"temperature": 0.6, "top_k": 0}),
        ({"do_sample": True, "top_p": 0}, {}, {"temperature": 1.0, "top_k": 1}),
        ({"top_k": -1, "top_p": 7}, {}, {"temperature": 0.0}),
        ({"stop_strings": "abc"}, {}, {"temperature": 0.0, "top_k": 50, "stop": ("abc",)}),
        ({"num_beams": 4, "do_sample": True}, {"temperature": 0.0}, {"temperature": 0.0, "n_beams": 4, "top_k": 50}),
        ({"num_beams": 4, "do_sample": True}, {"n_beams": 1}, {"temperature": 1.0, "top_k": 50}),
        ({"do_sample": True, "top_k": -1}, {"top_k": 3}, {"temperature": 1.0, "top_k": 3}),
        ({"bad_words_ids": [[1, 2]]}, {"banned_ids": (1,)}, {"temperature": 0.0, "top_k": 50, "banned_ids": (1,)}),
        ({"max_length": "long"}, {"max_new_tokens": 5}, {"temperature": 0.0, "top_k": 50, "max_new_tokens": 5}),
    ],
)
def test_what_a_file_leaves_out_is_what_transformers_does(values, changes, expected):
    found = read_settings(values, {}, None, apart=True)
    assert found.replaced(**changes) == GenerationSettings(**expected)


def test_nonsense_of_an_older_folder_is_found_in_its_config():
    with pytest.raises(ModelFileError, match=r"^config.json: eos_token_id must hold token ids, not 'x'; mend the file"):
        read_settings({}, {"eos_token_id": "x"}, 1, apart=False).replaced()
    assert read_settings({"eos_token_id": 7}, {"eos_token_id": "x"}, 1, apart=False).eos_ids == (7,)


def test_repeating_finds_every_continuation():
    assert repeating([1, 2, 3, 1, 2, 4, 1, 2], 3) == {3, 4}
    assert repeating([1, 2, 1], 1) == {1, 2}
    assert repeating([1], 3) == set()


@pytest.fixture(scope="module")
def letters():
    return Tokenizer.train(["abcdefghijklmnopqrs"], kind="characters")


def written(letters, n_new, **options):
    """What a writer takes from logits that always prefer the same tokens, in falling order."""
    settings = GenerationSettings(temperature=0.0, max_new_tokens=n_new, **options)
    writer = Sampler(Request([2], [3], 100), letters, settings)
    logits = np.linspace(3, 0, letters.vocab_size, dtype=np.float32)[None]
    while not writer.stopped:
        writer.take(logits)
    return writer.ids, writer.stopped


def test_rules_of_writing(letters):
    assert written(letters, 3, eos_ids=(9,)) == ([0, 0, 0], "length")
    assert written(letters, 4, eos_ids=(0,)) == ([0], "eos")
    assert written(letters, 4, eos_ids=(0,), min_new_tokens=2) == ([1, 1, 0], "eos")
    assert written(letters, 4, eos_ids=(9,), banned_ids=(0, 2), no_repeat_ngram=1)[0] == [1, 3, 4, 5]
    assert written(letters, 4, eos_ids=(9,), first_id=7, last_id=9) == ([7, 0, 0, 9], "eos")


@pytest.mark.parametrize("n_beams", [1, 2])
@pytest.mark.parametrize("options", [{"first_id": 10**9}, {"last_id": 10**9}, {"banned_ids": range(100)}])
def test_settings_that_leave_no_token_are_an_error(letters, options, n_beams):
    settings = GenerationSettings(temperature=0.0, max_new_tokens=1, n_beams=n_beams, **options)
    writer = (Sampler if n_beams == 1 else BeamSearch)(Request([2], [3], 100), letters, settings)
    logits = np.linspace(3, 0, letters.vocab_size, dtype=np.float32)[None]
    with pytest.raises(GenerationError) as caught:
        writer.take(logits)
    assert caught.value.code == "no_token_allowed"


@pytest.fixture(scope="module")
def reader(letters):
    model = small_model("t5", vocab_size=letters.vocab_size)
    tasks = {
        "summarization": {"prefix": "so", "max_length": 6, "num_beams": 3, "length_penalty": 2.5},
        "translation_a": {"prefix": "ro"},
        "translation_b": {"prefix": "b"},
    }
    return LanguageModel(model, letters, GenerationSettings(start_id=0), trained_for=tasks)


def ids(results):
    return [result.ids for result in results]


def test_tasks_lend_their_prefix_and_settings(reader, tmp_path):
    options = {"temperature": 0.0, "max_new_tokens": 5, "n_beams": 3, "length_penalty": 2.5}
    expected = ids(reader.generate_batch(["soab", "soc"], **options))
    assert ids(reader.summarize(["ab", "c"])) == expected
    chosen = reader.translate(["c"], task="translation_b", max_new_tokens=4)
    assert ids(chosen) == ids(reader.generate_batch(["bc"], temperature=0.0, n_beams=4, max_new_tokens=4))
    language_model.save(reader, tmp_path / "folder")
    again = language_model.load(tmp_path / "folder")
    assert again.settings == reader.settings
    assert ids(again.summarize(["ab", "c"])) == expected


def test_a_task_is_named_where_there_are_several(reader):
    with pytest.raises(UsageError) as caught:
        reader.translate(["c"])
    assert caught.value.code == "bad_option"
    with pytest.raises(UnsupportedError) as caught:
        reader.translate(["c"], task="translation_c")
    assert caught.value.code == "unknown_task"
