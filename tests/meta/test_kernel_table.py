"""The kernel table equals the folder, and `check_kernel` catches planted faults."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest

from minislm.ops import OPS, load_op
from minislm.testing.kernels import check_kernel, interpreted

kernels = pytest.importorskip("minislm.kernels")

FOLDER = Path(kernels.__path__[0])
SHARED = {"runtime_cython", "roofline_cython"}  # no kernels: what all the compiled ones use, and what they could reach


def public_functions(path):
    """Names of the functions that a Python or Cython file defines for others."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return {
            node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) if node.name[0] != "_"
        }
    return set(re.findall(r"^def ([a-z]\w*)\(", source, re.MULTILINE))


def is_op(name):
    return name in OPS or (name.removesuffix("_backward") in OPS and OPS[name.removesuffix("_backward")].gradients)


def test_table_equals_folder():
    in_table = {row.function for row in kernels.KERNELS}
    files = [*FOLDER.glob("*_numba.py"), *FOLDER.glob("*_cython.pyx")]
    in_folder = {
        f"{path.stem}:{name}"
        for path in files
        if path.stem not in SHARED
        for name in public_functions(path)
        if is_op(name)
    }
    assert in_table == in_folder


def test_rows_name_ops_dtypes_and_their_technology():
    seen = set()
    for row in kernels.KERNELS:
        load_op(row.op)
        module, _, function = row.function.partition(":")
        assert row.technology in ("cython", "numba")
        assert module.endswith(f"_{row.technology}")
        assert function == row.op
        assert row.dtypes
        assert "float64" not in row.dtypes
        key = (row.op, row.technology, row.preferred)
        assert key not in seen
        seen.add(key)


def test_every_c_file_belongs_to_a_border():
    borders = {path.stem.removesuffix("_cython") for path in FOLDER.glob("*_cython.pyx")}
    assert {path.stem for path in (FOLDER / "c").glob("*.c")} - {"threads", "joined", "processor"} <= borders


def rms_norm(fault):
    """A right kernel with one fault in it."""
    reference = load_op("rms_norm")

    def kernel(x_ND, w_D, *, eps, out=None, threads=1):
        for array, name in ((x_ND, "x"), (w_D, "w")):
            if array.dtype != np.float32 and fault != "takes float64":
                raise TypeError(f"{name if fault != 'no name' else 'it'} must be float32")
        if fault == "last column":
            x_ND = np.concatenate([x_ND[:, :-1], x_ND[:, -1:] * np.float32(1.01)], axis=1)
        if fault == "nan":
            x_ND = np.nan_to_num(x_ND, posinf=np.inf, neginf=-np.inf)
        if fault == "writes" and x_ND.flags.writeable:
            x_ND += np.float32(0.0) * x_ND
            x_ND[:1] = 0.0
        if fault == "layout" and not x_ND.flags.c_contiguous:
            x_ND = x_ND[::-1]
        y_ND, (x_ND, w_D, r_N) = reference(x_ND, w_D, eps=eps)
        if fault == "one percent":
            y_ND *= np.float32(1.01)
        if fault == "threads":
            y_ND[:1] *= np.float32(1.0 + 1e-7 * threads)
        if fault == "dtype":
            y_ND = y_ND.astype(np.float64)
        if fault == "saved":
            return y_ND, (x_ND, w_D)
        if fault == "saved value":
            r_N = r_N * r_N
        if out is not None and fault != "out":
            out[...] = y_ND
            y_ND = out
        return y_ND, (x_ND, w_D, r_N)

    return kernel


def test_the_faultless_kernel_passes():
    assert 0.0 <= check_kernel(rms_norm(None), "rms_norm") <= 1.0


@pytest.mark.parametrize(
    "fault",
    [
        "last column",
        "one percent",
        "nan",
        "writes",
        "layout",
        "threads",
        "dtype",
        "saved",
        "saved value",
        "out",
        "takes float64",
        "no name",
    ],
)
def test_a_planted_fault_is_caught(fault):
    with pytest.raises(AssertionError):
        check_kernel(rms_norm(fault), "rms_norm")


def test_the_op_is_not_compared_with_itself():
    with pytest.raises(AssertionError, match="with itself"):
        check_kernel(load_op("gelu"), "gelu")


def test_numba_kernels_are_interpreted_for_a_while():
    pytest.importorskip("numba")
    from minislm.kernels import rms_norm_numba

    compiled = rms_norm_numba._forward
    with interpreted(rms_norm_numba.rms_norm):
        assert rms_norm_numba._forward is compiled.py_func
    assert rms_norm_numba._forward is compiled
