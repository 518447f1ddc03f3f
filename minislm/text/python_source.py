"""Text out of the interpreter that runs: read from its source files, without importing or executing any of them."""

from __future__ import annotations

import ast
import os
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

# Folders of the library that hold no documentation, or not the library's own.
SKIPPED = ("test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__")
TOPICS = Path("pydoc_data", "topics.py")


def python_documents() -> list[str]:
    """Read the chapters of the language reference and the docstrings of the standard library.

    Returns
    -------
    list of str
        One document for each chapter and for each module, in a fixed order.
    """
    root = Path(sysconfig.get_path("stdlib"))
    documents = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the parser, about the style of the library
        for path in _modules(root):
            try:
                tree = ast.parse(path.read_bytes())
            except SyntaxError:
                continue  # a template or an example of an error: no module of this interpreter
            if path == root / TOPICS:
                documents += _chapters(tree)
            elif text := "\n\n".join(_docstrings(tree)):
                documents.append(text)
    return documents


def _modules(root: Path) -> Iterator[Path]:
    """Walk the library's modules by name."""
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(name for name in inner if name not in SKIPPED)
        yield from (Path(folder, name) for name in sorted(names) if name.endswith(".py"))


def _chapters(tree: ast.Module) -> list[str]:
    """Return the texts of the dictionary that `pydoc_data.topics` defines."""
    for statement in tree.body:
        value = getattr(statement, "value", None)
        if isinstance(value, ast.Dict):
            return [text for _, text in sorted(ast.literal_eval(value).items())]
    return []


def _docstrings(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """Yield the docstrings of a module, class or function and of all that is defined in it."""
    if text := ast.get_docstring(node):
        yield text
    yield from _inner_docstrings(node.body)


def _inner_docstrings(statements: Sequence[ast.AST]) -> Iterator[str]:
    for statement in statements:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(statement)
        else:  # definitions may stand under if, try, with; expressions hold none
            for block in ("body", "orelse", "handlers", "finalbody"):
                yield from _inner_docstrings(getattr(statement, block, ()))
