"""Names of the hub are found in the cache of this machine, and nowhere else."""

from __future__ import annotations

import shutil

import pytest

from minislm import load, save
from minislm.errors import NotFoundError, UsageError
from minislm.files.hub import cached
from minislm.language_model import LanguageModel
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.text.tokenizer import Tokenizer

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache that holds org/small, laid out as the hub's own library does."""
    config = DecoderConfig.uniform(vocab_size=257, d_model=8, context=8, n_layers=1, n_heads=2)
    save(LanguageModel(Decoder.create(config), Tokenizer.train([], kind="bytes")), tmp_path / "model")
    repository = tmp_path / "hub" / "models--org--small"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(REVISION)
    shutil.copytree(tmp_path / "model", repository / "snapshots" / REVISION)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return repository / "snapshots" / REVISION


def test_a_name_is_found(cache):
    assert cached("org/small") == cache
    assert load("org/small").model.config.d_model == 8


def test_a_path_that_exists_comes_first(cache, tmp_path):
    shutil.copytree(cache, tmp_path / "org" / "small")
    assert cached("org/small").resolve() == (tmp_path / "org" / "small").resolve()


def test_what_is_not_there_is_not_fetched(cache):
    with pytest.raises(NotFoundError, match="hf download org/other") as caught:
        load("org/other")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("name", ["small", "org/small/part", "../small", "org/sm all"])
def test_other_names_are_paths(cache, name):
    assert str(cached(name)) == name


@pytest.mark.parametrize("place", [3, None, b"model"])
def test_what_is_no_path_is_told(place):
    with pytest.raises(UsageError, match=r"expected the path or the name of a model, not "):
        load(place)
