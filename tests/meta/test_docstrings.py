"""Every public docstring is whole: numpydoc's checks, with no list of exempted names.

What is checked: public functions and classes of every public module, and the methods that a class adds. A method that
overrides one of a documented base says in one line what is particular to it; the base holds the contract. So do the
samplers of `minislm.testing.cases`, whose one signature the package's docstring explains.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

import minislm

numpydoc = pytest.importorskip("numpydoc.validate", reason="needs the dev extra: pip install -e '.[dev]'")

LEFT_OUT = {
    "ES01": "extended summaries only where there is more to say",
    "SA01": "names in the text are enough",
    "EX01": "examples are asked of ops and Methods, in the test below",
    "GL08": "a missing docstring is reported by name below",
    "PR07": "a parameter shared by a group of names needs one description",
    "GL01": "the summary starts on the line of the quotes",
    "SS06": "ruff limits the length of the line",
    "YD01": "generators document what they yield where it is not in the summary",
}


def public_modules():
    names = [m.name for m in pkgutil.walk_packages(minislm.__path__, "minislm.")]
    return ["minislm"] + [
        name
        for name in names
        if not name.startswith(("minislm.kernels", "minislm.testing.cases."))
        and not any(part.startswith("_") for part in name.split(".")[1:])
    ]


def public_members(module):
    for name, member in vars(module).items():
        if name.startswith("_") or getattr(member, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(member):
            yield f"{module.__name__}.{name}", member
        elif inspect.isclass(member):
            yield f"{module.__name__}.{name}", member
            for method_name, method in vars(member).items():
                inner = method.__func__ if isinstance(method, classmethod | staticmethod) else method
                overrides = any(method_name in vars(base) for base in member.__mro__[1:])
                if inspect.isfunction(inner) and not method_name.startswith("_") and not overrides:
                    yield f"{module.__name__}.{name}.{method_name}", inner


@pytest.mark.parametrize("module_name", public_modules())
def test_public_docstrings_are_whole(module_name):
    if module_name.startswith("minislm.benchmark.rivals."):
        pytest.importorskip(module_name, exc_type=ModuleNotFoundError)  # the rival may not be installed
    module = importlib.import_module(module_name)
    assert module.__doc__, f"{module_name} has no docstring"
    problems = []
    for name, member in public_members(module):
        if not member.__doc__:
            problems.append(f"{name}: no docstring")
            continue
        inherits = inspect.isclass(member) and "__init__" not in vars(member)  # its base documents the parameters
        for code, message in numpydoc.validate(name)["errors"]:
            if code not in LEFT_OUT and not (inherits and code == "PR01"):
                problems.append(f"{name}: {code} {message}")
    assert not problems, "\n".join(problems)
