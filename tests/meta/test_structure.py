"""The house stays as it was drawn: imports point one way, tables equal folders, public names are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import minislm
from minislm.cli import VERBS
from minislm.compression import METHODS
from minislm.models import MODELS, PUBLISHED
from minislm.weights import WEIGHTS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "minislm"
# Each part may import those before it; `testing` may look at all of them, and none of them at it.
ORDER = (
    "errors",
    "processors",
    "config",
    "ops",
    "dispatch",
    "weights",
    "layers",
    "models",
    "text",
    "files",
    "inference",
    "language_model",
    "evaluation",
    "training",
    "compression",
    "look",
    "tour",
    "benchmark",
    "cli",
    "__main__",
    "testing",
)


def imported(path):
    """Yield the names of minislm's modules that a file imports, at any depth, outside of TYPE_CHECKING."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("minislm."))
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "minislm":
                yield from (f"minislm.{name.name}" for name in node.names)
            elif node.module.startswith("minislm."):
                yield node.module


def python_files():
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if part == "__init__":
        return
    place = ORDER.index(part)
    for name in imported(path):
        other = name.split(".")[1]
        if other in ORDER:  # not a public name of minislm/__init__.py
            assert ORDER.index(other) <= place, f"{part} imports {name}, which stands above it"


def test_kernels_import_nothing_but_ops_and_errors():
    for path in sorted((ROOT / "kernels").glob("*.py*")):
        for line in path.read_text(encoding="utf-8").splitlines():
            found = re.match(r"\s*(?:from|import|cimport) (minislm\.\w+)", line)
            if found:
                assert found[1] in ("minislm.errors", "minislm.ops", "minislm.kernels"), f"{path.name}: {line.strip()}"


NO_MODELS = {"base", "bottleneck", "fields", "maker", "parts", "published", "published_encoder", "rotary_fields"}


@pytest.mark.parametrize(
    ("table", "folder", "others"),
    [
        ({**MODELS, **PUBLISHED}, "models", NO_MODELS),
        (VERBS, "cli", {"common", "live", "sampling_options", "terminal", "train_options"}),
    ],
    ids=["models", "cli"],
)
def test_tables_equal_folders(table, folder, others):
    listed = {value.partition(":")[0] for value in table.values()}
    there = {path.stem for path in (PACKAGE / folder).glob("*.py")} - {"__init__"} - others
    assert listed == there


@pytest.mark.parametrize(
    ("table", "package"),
    [(MODELS, "models"), (PUBLISHED, "models"), (VERBS, "cli"), (METHODS, "compression"), (WEIGHTS, "weights")],
)
def test_every_row_of_a_table_exists(table, package):
    for value in table.values():
        module, _, name = value.partition(":")
        tree = ast.parse((PACKAGE / package / f"{module}.py").read_text(encoding="utf-8"))
        names = {getattr(node, "name", None) for node in tree.body}
        names |= {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        assert name in names, value


def test_public_names_are_found_and_no_other():
    for name in minislm.EXPORTS:
        assert getattr(minislm, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        minislm.no_such_name  # noqa: B018
