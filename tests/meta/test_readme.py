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
from minislm.text import corpus
from minislm.text.corpus import from_documents
from minislm.training.train import create

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n)+", TEXT, re.MULTILINE)]
COMMANDS = [part for line in re.findall(r"^    .*minislm .*", TEXT, re.MULTILINE) for part in line.split("&&")]
COMMANDS = [command.split(" #")[0].strip() for command in COMMANDS if command.strip().startswith("minislm ")]
RECIPES = [block for block in BLOCKS if block.startswith("steps:")]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command):
    verb, *arguments = shlex.split(command)[1:]
    found = cli.main.get_command(click.Context(cli.main), verb)
    assert found is not None, f"there is no verb {verb}"
    found.make_context(verb, arguments)


def test_a_command_that_is_wrong_is_seen():
    for command in ("minislm generat x", "minislm generate out/python --promt x", "minislm train --task clasify"):
        with pytest.raises((AssertionError, click.UsageError)):
            test_every_command_is_understood(command)


def test_every_verb_but_the_small_ones_stands_there():
    assert {shlex.split(command)[1] for command in COMMANDS} >= set(cli.VERBS) - {"answer", "classify", "fill-mask"}


@pytest.mark.parametrize("text", RECIPES)
def test_every_recipe_is_one(text):
    assert Recipe.from_yaml(text, "README.md").steps


def test_there_are_recipes():
    assert len(RECIPES) == 3


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
