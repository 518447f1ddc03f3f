"""What the README says can be typed: every command is understood, every recipe is one, every file is there."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path

import click
import pytest

import minislm
from minislm import cli
from minislm.compression.recipe import Recipe
from minislm.models.encoder import Encoder, EncoderConfig
from minislm.text import corpus
from minislm.text.corpus import from_documents
from minislm.training.train import create

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n)+", TEXT, re.MULTILINE)]
COMMANDS = sorted(set(re.findall(r"(?:^ {4}|&& |`)(minislm \w[^`#\n]*?) *(?:$|[`#]|&&)", TEXT, re.MULTILINE)))
RECIPES = [block for block in BLOCKS if block.startswith("steps:")]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command):
    verb, *arguments = shlex.split(command)[1:]
    found = cli.main.get_command(click.Context(cli.main), verb)
    assert found is not None, f"there is no verb {verb}"
    with found.make_context(verb, arguments) as context:
        assert context.params


def test_a_command_that_is_wrong_is_seen():
    for command in ("minislm generat x", "minislm generate out/python --promt x", "minislm train --task clasify"):
        with pytest.raises((AssertionError, click.UsageError)):
            test_every_command_is_understood(command)


def test_every_verb_but_the_small_ones_stands_there():
    assert {shlex.split(command)[1] for command in COMMANDS} >= set(cli.VERBS) - {"answer", "classify", "fill-mask"}


@pytest.mark.parametrize("text", RECIPES)
def test_every_recipe_fits_a_model_of_the_default_size(text):
    recipe = Recipe.from_yaml(text, "README.md")
    assert len(recipe.steps) == text.count("method:")
    model = Encoder.create(EncoderConfig.uniform(vocab_size=8, d_model=128, context=8, n_layers=4, n_heads=4))
    data = object()  # nobody looks at it before the first step
    recipe.foresee(model, data)  # raises where a step does not fit


def test_there_are_recipes():
    assert len(RECIPES) == 4


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(((?!http)[^)#]+)\)", TEXT))))
def test_every_link_leads_somewhere(path):
    assert (README.parent / path).exists()


def test_the_python_runs_with_the_first_recipe(tmp_path, monkeypatch, capsys):
    sentences = [f"The for statement {i} says that {i} and {i + 1} make {2 * i + 1}." for i in range(300)]
    text = from_documents("\n\n".join(sentences[i : i + 5]) for i in range(0, 300, 5))
    monkeypatch.setattr(corpus, "python_corpus", lambda: text)
    monkeypatch.chdir(tmp_path)
    sizes = {"vocab_size": 270, "d_model": 32, "n_layers": 1, "n_heads": 2, "context": 32}
    minislm.save(create(text, **sizes), "out/python")
    assert "steps: 500" in RECIPES[0]
    Path("small.yaml").write_text(RECIPES[0].replace("steps: 500", "steps: 2"))
    exec(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)[0], {})
    assert capsys.readouterr().out
    assert minislm.load("out/python-small").history[0]["steps"][1]["format"] == "int4-32"
