"""The laws that every op keeps, over the table; and the table equals the folder."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

import minislm.ops
from minislm.ops import HELPERS, OPS, load_op
from minislm.testing.cases import sample_cases
from minislm.testing.laws import arrays_in, check_dtype, check_gradient, check_precision

WITH_GRADIENTS = [op for op, row in OPS.items() if row.gradients]
# Rounding activations to codes is not smooth: float32 and float64 may fall on two sides of a rounding boundary.
ROUNDING = ("attention_packed_int8", "quantize_activations", "quantized_product_int8")
SMOOTH = [op for op in OPS if op not in ROUNDING]


@pytest.mark.parametrize("op", WITH_GRADIENTS)
def test_backward_is_the_gradient(op):
    for args, kwargs in sample_cases(op):
        check_gradient(op, args, kwargs)


@pytest.mark.parametrize("op", OPS)
def test_float32_stays_float32(op):
    for args, kwargs in sample_cases(op):
        check_dtype(op, args, kwargs)


@pytest.mark.parametrize("op", SMOOTH)
def test_float32_is_close_to_float64(op):
    for args, kwargs in sample_cases(op):
        check_precision(op, args, kwargs)


@pytest.mark.parametrize("op", OPS)
def test_cases_are_several_and_not_constant(op):
    cases = sample_cases(op)
    assert len(cases) >= 3
    spread = [array for args, _ in cases for array in arrays_in(args) if array.size > 1 and array.dtype.kind == "f"]
    assert all(array.min() < array.max() for array in spread)


def test_table_equals_folder():
    in_table = {row.function for row in OPS.values()} | {
        f"{row.function}_backward" for row in OPS.values() if row.gradients
    }
    in_folder = set()
    for module in pkgutil.iter_modules(minislm.ops.__path__):
        functions = inspect.getmembers(importlib.import_module(f"minislm.ops.{module.name}"), inspect.isfunction)
        in_folder |= {
            f"{module.name}:{name}"
            for name, function in functions
            if not name.startswith("_") and function.__module__ == f"minislm.ops.{module.name}"
        }
    assert in_folder == in_table | set(HELPERS)


def test_gradients_are_arguments():
    for op in WITH_GRADIENTS:
        names = [name.split("_")[0] for name in inspect.signature(load_op(op)).parameters]
        assert [name for name in names if name in OPS[op].gradients] == list(OPS[op].gradients)
