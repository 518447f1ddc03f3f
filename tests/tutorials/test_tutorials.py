"""Every tutorial has its form and runs, its own assertions true; the runs are left out unless asked for by marker."""

from __future__ import annotations

import ast
import os
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "tutorials").glob("[0-9]*.py"))
each = pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)


@pytest.fixture(autouse=True)
def _shapes():
    """Leave the checker of shapes out: it would double the time, and every function has tests of its own."""


@pytest.mark.tutorials
@pytest.mark.timeout(180)  # three times what one may take on an idle core
@each
def test_it_runs(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(path.parent)  # as `python tutorials/...` has it
    runpy.run_path(str(path), run_name="__main__")
    told = capsys.readouterr().out
    assert told
    assert not any(tmp_path.iterdir()), "it left files behind"
    if os.environ.get("MINISLM_REQUIRE_EXTENSIONS") == "1":
        assert "skipped" not in told


def code_cells(path):
    """Return the code of each cell that is no prose."""
    cells = re.split(r"^# %%", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return [cell.split("\n", 1)[1] for cell in cells if not cell.startswith(" [markdown]")]


def test_they_are_numbered_from_one():
    assert [path.stem[:3] for path in TUTORIALS] == [f"{i:02}_" for i in range(1, len(TUTORIALS) + 1)]


@each
def test_it_has_the_form(path):
    text = path.read_text(encoding="utf-8")
    assert re.fullmatch(r"\d\d(_[a-z]+){2,}", path.stem), "NN_verb_object.py"
    intro = text.partition("# %%\n")[0]
    assert intro.startswith("# %% [markdown]\n# # "), "a title"
    assert re.search(r"At the end .* (second|minute)", intro, re.DOTALL), "what will be true, and how long it takes"
    assert text.count("\n") <= 150
    assert f"tutorials/{path.name}" in (ROOT / "README.md").read_text(encoding="utf-8")


@each
def test_every_cell_shows_something(path):
    for cell in code_cells(path):
        calls = [node.func for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.Call)]
        assert any(getattr(call, "id", "") == "print" for call in calls), cell
