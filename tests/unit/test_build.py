"""Building the extensions: with no compiler, with one that refuses an instruction set, and where they are required."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import minislm

pytest.importorskip("Cython")

ROOT = Path(minislm.__file__).parents[1]

pytestmark = [
    pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="not a source checkout"),
    pytest.mark.skipif(not (ROOT / "kernels").exists(), reason="kernels/ was removed"),
]


@pytest.fixture
def checkout(tmp_path):
    """Copy what the build of two small extensions needs."""
    (tmp_path / "minislm").mkdir()
    (tmp_path / "minislm" / "__init__.py").write_text("")
    (tmp_path / "kernels" / "c").mkdir(parents=True)
    plain_c = ("c/*.h", "c/threads.c", "c/joined.c", "c/processor.c", "c/linear.c")
    for pattern in ("runtime_cython.pyx", "linear_cython.pyx", "native.pxd", *plain_c):
        for path in (ROOT / "kernels").glob(pattern):
            shutil.copy(path, tmp_path / "kernels" / path.relative_to(ROOT / "kernels"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def build(checkout, **environment):
    """Run the build; return the finished process and the extensions that came out."""
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--build-lib", "built"],
        cwd=checkout,
        env={**os.environ, "MINISLM_REQUIRE_EXTENSIONS": "0", **environment},
        capture_output=True,
        text=True,
    )
    return done, sorted(path.name.partition(".")[0] for path in (checkout / "built").rglob("*.so"))


def test_without_a_compiler_the_build_goes_on(checkout):
    done, built = build(checkout, CC="/nowhere/cc")
    assert done.returncode == 0, done.stderr
    assert built == []


def test_without_a_compiler_required_extensions_fail(checkout):
    done, _ = build(checkout, CC="/nowhere/cc", MINISLM_REQUIRE_EXTENSIONS="1")
    assert done.returncode != 0


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_refused_instruction_set_is_left_out_alone(checkout):
    picky = checkout / "picky"
    picky.write_text('#!/bin/sh\ncase "$*" in *-mavx*) echo no AVX here >&2; exit 1;; esac\nexec cc "$@"\n')
    picky.chmod(0o755)
    done, built = build(checkout, CC=str(picky), MINISLM_REQUIRE_EXTENSIONS="1")
    assert done.returncode == 0, done.stderr
    assert built == ["linear_cython", "runtime_cython"]
    assert "HAVE_baseline" in done.stdout
    assert "HAVE_avx2" not in done.stdout
