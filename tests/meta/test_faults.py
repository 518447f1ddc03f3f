"""Tests of the tests: planted faults are caught, and rounding is not mistaken for one."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

import minislm
from minislm.ops import OPS, load_op
from minislm.testing.cases import sample_cases
from minislm.testing.laws import check_dtype, check_gradient, check_precision
from minislm.testing.shapes import axes_of, checked_shapes
from minislm.testing.tolerances import assert_close

FAULTS = {
    "sign flip": lambda dx: -dx,
    "missing factor": lambda dx: dx / np.sqrt(8.0),
    "one percent": lambda dx: dx * 1.01,
    "not a number": lambda dx: np.where(np.arange(dx.size).reshape(dx.shape) == dx.size - 1, np.nan, dx),
    "one row missing": lambda dx: np.concatenate([dx[:-1], np.zeros_like(dx[-1:])]),
    "wrong shape": lambda dx: dx.sum(axis=0),
}


def plant(monkeypatch, name, change):
    """Put `change(original)` in the place of an op."""
    original = load_op(name)
    forward = name.removesuffix("_backward") if name.removesuffix("_backward") in OPS else name
    module, _, function = OPS[forward].function.partition(":")
    function += "_backward" if name != forward else ""
    monkeypatch.setattr(importlib.import_module(f"minislm.ops.{module}"), function, change(original))


def spoiled(original, place, fault):
    def backward(dy, saved):
        gradients = original(dy, saved)
        if not isinstance(gradients, tuple):
            return fault(gradients)
        return tuple(fault(g) if i == place and g is not None else g for i, g in enumerate(gradients))

    return backward


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("op", [op for op, row in OPS.items() if row.gradients])
def test_gradient_law_catches(op, fault, monkeypatch):
    args, kwargs = max(sample_cases(op), key=lambda case: case[0][0].size)
    check_gradient(op, args, kwargs)
    for place in range(len(OPS[op].gradients)):
        with monkeypatch.context() as patch:
            plant(patch, f"{op}_backward", lambda original, at=place: spoiled(original, at, FAULTS[fault]))
            with pytest.raises(AssertionError):
                check_gradient(op, args, kwargs)


def test_gradient_law_catches_an_argument_written_to(monkeypatch):
    def writing(original):
        def relu_backward(dy, saved):
            dy *= saved[0] > 0
            return dy.copy()

        return relu_backward

    plant(monkeypatch, "relu_backward", writing)
    with pytest.raises(AssertionError, match="wrote into an argument"):
        check_gradient("relu", *sample_cases("relu")[1])


def test_gradient_law_catches_a_shared_result(monkeypatch):
    plant(monkeypatch, "silu_gate_backward", lambda original: lambda dy, saved: (original(dy, saved)[0],) * 2)
    with pytest.raises(AssertionError, match="shares memory"):
        check_gradient("silu_gate", *sample_cases("silu_gate")[1])


def test_dtype_law_catches_a_wider_result_and_a_wider_saved_array(monkeypatch):
    case = sample_cases("softmax")[1]
    for widen in (
        lambda y, saved: (y.astype(np.float64), saved),
        lambda y, saved: (y, tuple(array.astype(np.float64) for array in saved)),
    ):
        with monkeypatch.context() as patch:
            plant(patch, "softmax", lambda original, widen=widen: lambda x: widen(*original(x)))
            with pytest.raises(AssertionError, match="float64"):
                check_dtype("softmax", *case)


def test_precision_law_catches_half_precision_inside(monkeypatch):
    def halved(original):
        return lambda x: original(x.astype(np.float16).astype(x.dtype) if x.dtype == np.float32 else x)

    plant(monkeypatch, "gelu", halved)
    with pytest.raises(AssertionError, match="float32 result of gelu"):
        check_precision("gelu", *sample_cases("gelu")[1])


def test_comparison_lets_rounding_pass_and_counts_it(rng):
    x, w = rng.normal(size=(20, 1000)), rng.normal(size=(30, 1000))
    units = assert_close(x.astype(np.float32) @ w.astype(np.float32).T, x @ w.T, length=1000)
    assert 0.001 < units < 1.0


@pytest.mark.parametrize(
    ("actual", "message"),
    [
        ([1.0, 2.02, -np.inf, np.nan], r"\[1\] is 2.01999"),
        ([1.0, np.nan, -np.inf, np.nan], r"\[1\] is nan"),
        ([1.0, np.inf, -np.inf, np.nan], r"\[1\] is inf"),
        ([1.0, 2.0, np.inf, np.nan], r"\[2\] is inf"),
        ([1.0, 2.0, -np.inf, 3.0], r"\[3\] is 3.0"),
        ([1.0, 2.0, -np.inf], "shape"),
    ],
)
def test_comparison_catches(actual, message):
    expected = np.array([1.0, 2.0, -np.inf, np.nan])
    assert assert_close(expected.astype(np.float32), expected) == 0.0
    with pytest.raises(AssertionError, match=message):
        assert_close(np.array(actual, np.float32), expected)


def test_comparison_of_whole_numbers_is_exact():
    assert_close(np.array([1, 2]), np.array([1, 2]))
    with pytest.raises(AssertionError):
        assert_close(np.array([1, 2]), np.array([1, 3]))


def test_scale_by_row_catches_what_the_largest_entry_would_hide():
    expected = np.array([[1e6, 1e6], [1e-3, 1e-3]])
    wrong = (expected * [[1.0], [1.01]]).astype(np.float32)
    assert_close(wrong, expected)
    with pytest.raises(AssertionError):
        assert_close(wrong, expected, scale=np.abs(expected).max(axis=1, keepdims=True))


def planted(source, folder=None):
    """Compile functions as if they stood in a file of the package."""
    path = (folder or Path(minislm.__path__[0])) / "planted.py"
    names = {"np": np}
    exec(compile(source, str(path), "exec"), names)
    return names


HEADS = """
def forgotten_repeat(q_BTHK, k_BSGK):
    k_BSHK = k_BSGK
    return q_BTHK.sum() + k_BSHK.sum()

def keepdims_left_on(x_ND):
    mean_N = x_ND.mean(axis=-1, keepdims=True)
    return mean_N

def right(x_ND, w_O1D, w_O2D, b=None):
    y_NO1, y_NO2 = x_ND @ w_O1D.T, x_ND @ w_O2D.T
    parts = [y_N for y_N in (y_NO1[:, 0], y_NO2[:, 0])]
    return parts

def inner(x_ND):
    def apply():
        wrong_N = x_ND[:2, :3]
        return wrong_N.sum()
    return apply()

def steps(x_ND):
    for x_N in x_ND.T:
        y_ND = x_N
        yield y_ND.sum()

def refusing(x_ND):
    y_N = x_ND
    raise ValueError("shapes do not fit")

def nothing(x_N):
    pass
"""
X = np.ones((3, 4))


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda f: f["forgotten_repeat"](np.ones((1, 2, 4, 3)), np.ones((1, 5, 2, 3))), "H is 4 in q_BTHK and 2"),
        (lambda f: f["keepdims_left_on"](X), r"mean_N has shape \(3, 1\), 2 axes where its name says 1"),
        (lambda f: f["inner"](X), "wrong_N has shape"),
        (lambda f: list(f["steps"](X)), "y_ND has shape"),
        (lambda f: f["nothing"](X), "x_N has shape"),
    ],
)
def test_shape_checker_catches(call, complaint):
    functions = planted(HEADS)
    with pytest.raises(AssertionError, match=complaint), checked_shapes():
        call(functions)


def test_shape_checker_lets_right_names_pass():
    with checked_shapes() as complaints:
        planted(HEADS)["right"](X, np.ones((5, 4)), np.ones((2, 4)))
    assert complaints == []


def test_shape_checker_leaves_refusals_and_other_folders_alone(tmp_path):
    with checked_shapes() as complaints:
        with pytest.raises(ValueError, match="do not fit"):
            planted(HEADS)["refusing"](X)
        planted(HEADS, tmp_path)["keepdims_left_on"](X)
    assert complaints == []


def test_shape_checker_is_on_in_every_test():
    import sys

    assert type(sys.getprofile()).__name__ == "_Checker"


def test_suffixes():
    assert axes_of("q_BTHK") == ("B", "T", "H", "K")
    assert axes_of("w_O1I") == ("O1", "I")
    assert axes_of("logits") == axes_of("n_heads") == axes_of("_MIX_1") == axes_of("F") == ()
