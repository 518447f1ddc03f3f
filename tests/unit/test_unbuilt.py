"""The command line where the compiled kernels were never built, as on a machine without a C compiler."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("minislm.kernels", reason="kernels/ was removed")

# Runs a command line as if no file of a compiled module were there.
WITHOUT_COMPILED_MODULES = """
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        hidden = name.startswith("minislm.kernels.") and name.endswith("_cython")
        return None if hidden else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Hiding, sys.meta_path)
from minislm.cli import main
main(sys.argv[1:])
"""


def called(*arguments):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILED_MODULES, *map(str, arguments)],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_doctor_says_so():
    values = json.loads(called("doctor", "--json"))
    assert values["kernels"]["cython modules"][0].startswith("none of ")
    assert "not built" in values["ops"]["layer_norm"]["reason"]
    assert {choice["tier"] for choice in values["ops"].values()} == {"numpy", "numba"}


def test_a_model_is_trained_with_checkpoints_and_run(tmp_path):
    (tmp_path / "text.txt").write_text(
        "\n\n".join(f"Sentence {i} says that {i} is less than {i + 1}." for i in range(60))
    )
    sizes = ["--layers", 1, "--width", 8, "--heads", 2, "--context", 16, "--vocab-size", 270]
    called("train", tmp_path / "text.txt", "-o", tmp_path / "model", "--tokens", 300, "--quiet", *sizes)
    (state,) = (tmp_path / "model.run").glob("step-*/state.json")
    assert json.loads(state.read_text())["environment"]["kernels"] == ""
    assert json.loads(called("generate", tmp_path / "model", "-p", "Sentence", "-n", 3, "--json"))["ids"]
