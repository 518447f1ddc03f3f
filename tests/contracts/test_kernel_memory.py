"""Compiled kernels between pages that nobody may touch, on 1 to 8 threads, from two callers at once, and after a fork.

    pytest -m slow tests/contracts/test_kernel_memory.py

Each kernel runs in a process of its own, because what reads or writes beyond an array between such pages is killed.
"""

from __future__ import annotations

import ctypes
import importlib
import mmap
import os
import signal
import threading
import warnings

import numpy as np
import pytest

from minislm.testing.kernels import check_kernel, kernel_cases
from minislm.testing.laws import arrays_in, copied, same

kernels = pytest.importorskip("minislm.kernels")
pytest.importorskip("minislm.kernels.runtime_cython")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]

ROWS = [row for row in kernels.KERNELS if row.technology == "cython"]
SETS = kernels.instruction_set().available
NO_ACCESS = 0


def load(row):
    """Import a kernel."""
    module, _, function = row.function.partition(":")
    return getattr(importlib.import_module(f"minislm.kernels.{module}"), function)


def between_guards(array, at_end):
    """Copy an array to pages with one before and one behind that may not be touched; it touches one of them."""
    page = mmap.PAGESIZE
    inside = -(-max(array.nbytes, 1) // page) * page
    region = mmap.mmap(-1, inside + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(region))
    for guard in (start, start + page + inside):
        assert ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(guard), page, NO_ACCESS) == 0
    offset = page + (inside - array.nbytes if at_end else 0)
    guarded = np.frombuffer(region, array.dtype, array.size, offset).reshape(array.shape)
    guarded[...] = array
    return guarded


def placed(value, at_end):
    """Put every array of an argument between guards."""
    if isinstance(value, np.ndarray):
        return between_guards(value, at_end)
    if isinstance(value, dict):
        return {name: placed(item, at_end) for name, item in value.items()}
    if hasattr(value, "_fields"):
        return type(value)(*(placed(item, at_end) for item in value))
    return tuple(placed(item, at_end) for item in value) if type(value) is tuple else value


def in_a_child(work):
    """Run a function in a forked process; return its exit status, the negative number of a signal that killed it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking while there are threads, which is the point
        child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_between_guards(kernel, op, cases):
    """Run cases with all arrays, and the result, at the beginning and at the end of their pages."""
    for args, options in cases:
        with np.errstate(all="ignore"):
            result = kernel(*copied(args), **copied(options))
        first = result[0] if isinstance(result, tuple) else result
        for at_end in (False, True):
            for threads in (1, 2):
                out = {}
                if isinstance(first, np.ndarray):
                    out["out"] = between_guards(np.zeros_like(first, order="C"), at_end)
                with np.errstate(all="ignore"):
                    kernel(*placed(args, at_end), **placed(options, at_end), **out, threads=threads)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.op)
def test_nothing_beyond_an_array_is_touched(row, name):
    before = kernels.instruction_set().chosen

    def work():
        kernels.instruction_set(name)
        run_between_guards(load(row), row.op, [*kernel_cases(row.op), *kernel_cases(row.op, large=True)])

    assert in_a_child(work) == 0
    assert kernels.instruction_set().chosen == before


@pytest.mark.parametrize("place", [-1, 1])
@pytest.mark.parametrize("writes", [False, True])
def test_who_goes_one_number_too_far_is_caught(place, writes):
    def faulty(x, *, out, threads=1):
        address = x.ctypes.data - 4 if place < 0 else x.ctypes.data + x.nbytes
        ctypes.memset(address, 0, 4) if writes else ctypes.string_at(address, 4)

    x = np.arange(5, dtype=np.float32)
    guarded = between_guards(x, at_end=place > 0)
    assert in_a_child(lambda: faulty(guarded, out=None)) == -signal.SIGSEGV
    assert in_a_child(lambda: ctypes.string_at(guarded.ctypes.data, x.nbytes)) == 0


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.op)
def test_one_to_eight_threads_give_the_same_bits(row, name):
    before = kernels.instruction_set().chosen
    try:
        kernels.instruction_set(name)
        check_kernel(load(row), row.op, threads=range(1, 9), seed=1)
    finally:
        kernels.instruction_set(before)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.op)
def test_two_callers_and_a_fork_give_the_same_bits(row):
    kernel, [(args, options)] = load(row), kernel_cases(row.op, large=True)

    def results(threads):
        own_args, own_options = copied(args), copied(options)
        with np.errstate(all="ignore"):
            result = kernel(*own_args, **own_options, threads=threads)
        return own_args if result is None else result

    expected, found = results(1), []

    def call():
        found.extend(same_bits(results(threads), expected) for threads in (2, 1, 3, 2))

    callers = [threading.Thread(target=call) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert found == [True] * 8

    def child():
        assert same_bits(results(2), expected)

    assert in_a_child(child) == 0
    assert same_bits(results(2), expected)


def same_bits(actual, expected):
    """Whether all arrays of two results have the same bits."""
    return same(arrays_in(actual), arrays_in(expected))
