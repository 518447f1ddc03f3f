"""Names of the hub are found in the cache of this machine, and nowhere else."""

from __future__ import annotations

import shutil

import pytest
from click.testing import CliRunner

from minislm import load, save
from minislm.cli import main
from minislm.errors import ModelFileError, NotFoundError, UsageError
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


def test_a_name_of_one_word_is_found(cache, tmp_path):
    shutil.copytree(tmp_path / "hub" / "models--org--small", tmp_path / "hub" / "models--gpt2", symlinks=True)
    assert load("gpt2").model.config.d_model == 8
    with pytest.raises(NotFoundError, match="hf download t5-small"):
        load("t5-small")


def test_what_was_fetched_without_a_config_is_pointed_to(cache):
    for file in cache.iterdir():
        file.unlink()
    (cache / "small-q4_0.gguf").touch()
    with pytest.raises(ModelFileError, match=rf"has no config\.json; name the GGUF file in it: {cache}/small"):
        load("org/small")


def test_a_folder_of_the_same_name_does_not_hide_what_is_cached(cache, tmp_path):
    (tmp_path / "org").mkdir()
    assert cached("org/small") == cache
    assert str(cached("org/other")) == "org/other"  # which was to be in this folder


@pytest.mark.parametrize(
    "command",
    [
        "info org/small",
        "generate org/small -p a -n 1",
        "compress org/small --method quantize -o out",
        "eval org/small --text text.txt",
        "eval model --against org/small --text text.txt",
        "train text.txt --from org/small -o out --tokens 16 --dry-run",
        "bench --model org/small --list",
    ],
)
def test_every_verb_takes_a_name(cache, tmp_path, command):
    (tmp_path / "text.txt").write_text("\n\n".join(f"Text {i} says {i * i}." for i in range(40)))
    result = CliRunner().invoke(main, [*command.split(), "--quiet"])
    assert result.exit_code == 0, result.output


def test_a_result_does_not_replace_the_cached_model_that_it_is_made_of(cache):
    result = CliRunner().invoke(main, ["compress", "org/small", "--method", "quantize", "-o", str(cache)])
    assert (result.exit_code, "[bad_option]" in result.stderr) == (2, True)


@pytest.mark.parametrize("name", ["org/small/part", "../small", "org/sm all", "x.gguf", "org/a--b", "a..b", ".hidden"])
def test_other_names_are_paths(cache, name):
    assert str(cached(name)) == name


@pytest.mark.parametrize("place", [3, None, b"model"])
def test_what_is_no_path_is_told(place):
    with pytest.raises(UsageError, match=r"expected the path or the name of a model, not "):
        load(place)
