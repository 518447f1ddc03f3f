"""The examples in the docstrings run, and every op has one."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import minislm
from minislm.ops import OPS, load_op

MODULES = [
    module.name
    for module in pkgutil.walk_packages(minislm.__path__, "minislm.")
    if not module.name.startswith(("minislm.kernels", "minislm.benchmark.rivals."))  # a rival may not be installed
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0, f"{failed} examples of {name} failed, see the captured output"


@pytest.mark.parametrize("op", OPS)
def test_every_op_has_an_example_and_says_what_it_computes(op):
    for name in (op, f"{op}_backward") if OPS[op].gradients else (op,):
        docstring = load_op(name).__doc__ or ""
        wanted = ("Notes", "Examples", ">>> ") + (("References",) if name == op else ())
        assert [section for section in wanted if section not in docstring] == []
