"""`minislm.compress` on a whole language model: it remembers what was done, and refuses a teacher of other tokens."""

from __future__ import annotations

import pytest

import minislm
from minislm.compression.distil import Distil
from minislm.compression.finetune import Train
from minislm.compression.prune import Prune
from minislm.compression.quantize import Quantize
from minislm.compression.recipe import Recipe, Step
from minislm.errors import UnsupportedError, UsageError
from minislm.language_model import LanguageModel
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.testing import methods as laws
from minislm.testing.examples import sample_data
from minislm.text.corpus import from_documents
from minislm.text.tokenizer import Tokenizer
from minislm.training.settings import TrainSettings
from minislm.training.train import windows

SHORT = TrainSettings(steps=2, batch_size=2)


def language_model(text, seed=0, n_layers=2):
    tokenizer = Tokenizer.train([text], kind="characters")
    sizes = DecoderConfig.uniform(vocab_size=tokenizer.vocab_size, d_model=8, context=8, n_layers=n_layers, n_heads=2)
    return LanguageModel(Decoder.create(sizes, seed), tokenizer)


@pytest.fixture
def lm():
    return language_model("abcdef ghij")


def test_a_saved_model_remembers_its_recipes(lm, tmp_path):
    before = laws.digest(lm.model)
    first = Recipe((Step(Prune(pattern="2:4"), "blocks.*.weight"),))
    small, report = minislm.compress(lm, first)
    smaller, _ = minislm.compress(small, Quantize("int8"), report=None)
    minislm.save(smaller, tmp_path / "small")
    loaded = minislm.load(tmp_path / "small")
    assert laws.digest(loaded.model) == laws.digest(smaller.model)
    assert [Recipe.from_json(values) for values in loaded.history] == [first, Recipe((Step(Quantize("int8")),))]
    assert report.bytes_after == small.model.nbytes
    assert laws.digest(lm.model) == before
    assert lm.history == ()


def test_a_corpus_becomes_windows_of_the_models_own_tokens(lm):
    corpus = from_documents(["abcdef ghij " * 20, "jihg fedcba " * 20, "ab cd ef gh ij " * 20])
    by_corpus, _ = minislm.compress(lm, Train(SHORT), corpus)
    by_windows, _ = minislm.compress(lm, Train(SHORT), windows(lm, corpus))
    assert laws.digest(by_corpus.model) == laws.digest(by_windows.model) != laws.digest(lm.model)
    with pytest.raises(UsageError, match="no tokenizer"):
        minislm.compress(lm.model, Train(SHORT), corpus)


def test_a_teacher_from_a_folder_teaches(lm, tmp_path):
    minislm.save(language_model("abcdef ghij", seed=5, n_layers=4), tmp_path / "teacher")
    recipe = Recipe((Step(Distil(SHORT)),), teacher=str(tmp_path / "teacher"))
    small, _ = minislm.compress(lm, recipe, sample_data(lm.model))
    own, _ = minislm.compress(lm, Distil(SHORT), sample_data(lm.model))
    assert small.model.config.n_layers == 2  # every other of the teacher's four
    assert own.model.config.n_layers == 1


def test_a_teacher_of_other_tokens_is_refused(lm, tmp_path):
    minislm.save(language_model("abcdef ghik"), tmp_path / "teacher")
    with pytest.raises(UnsupportedError) as caught:
        minislm.compress(lm, Recipe((Step(Distil(SHORT)),), str(tmp_path / "teacher")), sample_data(lm.model))
    assert caught.value.code == "vocabulary_differs"
