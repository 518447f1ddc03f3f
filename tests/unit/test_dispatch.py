"""Which implementation runs, and what is said about it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from minislm import dispatch
from minislm.dispatch import Choice, backend, ops, threads
from minislm.errors import UnsupportedError, UsageError
from minislm.ops import load_op

X, W = np.array([[3.0, 4.0]], np.float32), np.ones(2, np.float32)


class Row:
    """A row of a table made for the test."""

    technology = "numba"
    function = "test:recorder"
    dtypes = ("float32",)
    preferred = None

    def __init__(self, op="rms_norm", preferred=None):
        self.op = op
        self.preferred = preferred


@pytest.fixture
def calls(monkeypatch):
    """Replace the table by one kernel that records its calls and returns its op's result."""
    recorded = []

    def recorder(*args, out=None, threads=1, **options):
        recorded.append((args, out, threads, options))
        return load_op("rms_norm")(*args, **options)

    monkeypatch.setattr(dispatch, "_table", lambda: (Row(),))
    monkeypatch.setattr(dispatch, "_missing", lambda row: None)
    monkeypatch.setattr(dispatch._Row, "kernel", staticmethod(recorder))
    monkeypatch.setattr(ops, "rms_norm", dispatch._Dispatched("rms_norm"))
    return recorded


def test_the_table_decides(calls, monkeypatch):
    monkeypatch.setattr(dispatch, "available_processors", lambda: 4)
    threads(3)
    ops.rms_norm(X, W, eps=0.5)
    [(args, out, number, options)] = calls
    assert args[0] is X
    assert out is None
    assert number == 3
    assert options == {"eps": 0.5}


def test_no_more_threads_work_than_there_are_processors(calls, monkeypatch):
    monkeypatch.setattr(dispatch, "available_processors", lambda: 2)
    assert threads(7) == threads() == 2
    ops.rms_norm(X, W, eps=0.5)
    assert calls[0][2] == 2
    assert threads(1) == 1


def test_float64_is_numpy(calls):
    y_ND, _ = ops.rms_norm(X.astype(np.float64), W.astype(np.float64), eps=0.0)
    assert y_ND.dtype == np.float64
    assert not calls


def test_a_forced_backend_holds_and_is_put_back(calls):
    with backend("numpy"):
        ops.rms_norm(X, W, eps=0.0)
        assert not calls
        assert backend()["rms_norm"] == Choice("numpy", "numba: backend('numpy') was asked for")
    ops.rms_norm(X, W, eps=0.0)
    assert len(calls) == 1


def test_sizes_that_a_row_does_not_prefer_go_elsewhere(calls, monkeypatch):
    monkeypatch.setattr(dispatch, "_table", lambda: (Row(preferred=lambda x_ND, w_D, *, eps: len(x_ND) > 1),))
    monkeypatch.setattr(ops, "rms_norm", dispatch._Dispatched("rms_norm"))
    ops.rms_norm(X, W, eps=0.0)
    assert not calls
    ops.rms_norm(np.tile(X, (2, 1)), W, eps=0.0)
    assert len(calls) == 1
    assert backend()["rms_norm"] == Choice("numba", "for float32 at the sizes that it prefers")


def test_a_missing_tier_says_why(calls, monkeypatch):
    monkeypatch.setattr(dispatch, "_missing", lambda row: "Numba is not installed")
    monkeypatch.setattr(ops, "rms_norm", dispatch._Dispatched("rms_norm"))
    ops.rms_norm(X, W, eps=0.0)
    assert not calls
    assert backend()["rms_norm"] == Choice("numpy", "numba: Numba is not installed")
    installed = importlib.util.find_spec("minislm.kernels") is not None
    assert backend()["linear"].reason == ("no kernel is written" if installed else "minislm.kernels is not installed")


def test_out_receives_the_first_result_of_the_reference():
    with backend("numpy"):
        out = np.full((1, 2), np.nan, np.float32)
        y_ND, saved = ops.rms_norm(X, W, eps=0.0, out=out)
        assert y_ND is out
        assert len(saved) == 3
        np.testing.assert_allclose(out, [[0.848528, 1.131371]], rtol=1e-6)
        with pytest.raises(ValueError, match=r"\(1, 2\)"):
            ops.rms_norm(X, W, eps=0.0, out=np.zeros((3, 2), np.float32))


def test_the_dtype_is_found_in_what_was_saved():
    assert dispatch._first_dtype((1.0, ((), (X,)))) == np.float32
    assert dispatch._first_dtype((1.0, ())) is None


def test_unknown_names():
    with pytest.raises(UnsupportedError) as caught:
        backend("fortran")
    assert caught.value.code == "unknown_backend"
    with pytest.raises(AttributeError, match="rms_norm"):
        _ = ops.rmsnorm
    with pytest.raises(UsageError) as bad:
        threads(0)
    assert bad.value.code == "bad_threads"


def test_numba_is_imported_only_when_one_of_its_kernels_runs():
    code = "import sys, minislm, minislm.dispatch as d; d.backend(); assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
