"""Every kernel of the table equals its op, on every instruction set that this processor has."""

from __future__ import annotations

import importlib

import pytest

from minislm.testing.kernels import check_kernel, kernel_cases

kernels = pytest.importorskip("minislm.kernels")

SETS = kernels.instruction_set().available or ("baseline",)
ROWS = [
    pytest.param(row, name, id=f"{row.op}-{row.technology}-{name}")
    for row in kernels.KERNELS
    for name in (SETS if row.technology == "cython" else ("llvm",))
]


def load(row):
    """Import a kernel; skip where it was not built or Numba is missing."""
    module, _, function = row.function.partition(":")
    if row.technology == "numba":
        pytest.importorskip("numba")
    return getattr(pytest.importorskip(f"minislm.kernels.{module}"), function)


@pytest.fixture
def _instruction_set():
    """Put the instruction set back after the test."""
    before = kernels.instruction_set().chosen
    yield
    if before:
        kernels.instruction_set(before)


@pytest.mark.parametrize(("row", "name"), ROWS)
@pytest.mark.usefixtures("_instruction_set")
def test_kernel_equals_its_op(row, name):
    kernel = load(row)
    if row.technology == "cython":
        kernels.instruction_set(name)
    worst = check_kernel(kernel, row.op)
    print(f"{row.op} {row.technology} {name}: largest error {worst:.2f} of the tolerance")


@pytest.mark.parametrize("row", [row for row in kernels.KERNELS if row.technology == "cython"], ids=lambda row: row.op)
def test_large_cases_are_shared_among_threads(row):
    kernel = load(row)
    runtime = importlib.import_module("minislm.kernels.runtime_cython")
    before = runtime.tasks_shared()
    cases = kernel_cases(row.op, large=True)
    assert cases, f"minislm/testing/large.py has no case of {row.op}: its threads are not tested"
    for args, options in cases:
        kernel(*args, **options, threads=2)
        assert runtime.tasks_shared() > before, "the large case is too small to be shared: its threads are not tested"
