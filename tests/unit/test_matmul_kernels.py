"""What is particular to products with plain matrices: edges of tiles, and rows that do not depend on others."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import pytest

from minislm.ops.float_panels import pack_float_panels, unpack_float_panels
from minislm.testing.tolerances import assert_close

kernels = pytest.importorskip("minislm.kernels")
matmul = pytest.importorskip("minislm.kernels.matmul_cython")

# Around the rows of a tile and of a part, the terms of a sum of sums, and the columns of a panel.
ROWS = (0, 1, 2, 3, 5, 6, 7, 11, 12, 13, 23, 25, 97, 193)
TERMS = (0, 1, 2, 3, 4, 5, 255, 256, 257, 514)
COLUMNS = (0, 1, 3, 4, 5, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 129)


@pytest.fixture(params=kernels.instruction_set().available, autouse=True)
def _instruction_set(request):
    """Run the test on every instruction set that this processor has."""
    before = kernels.instruction_set().chosen
    kernels.instruction_set(request.param)
    yield
    kernels.instruction_set(before)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def exact(a, b):
    """The product in float64, rounded once."""
    return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32)


def test_products_of_all_sizes():
    for n_rows, n_terms, n_columns in itertools.product(ROWS, TERMS, COLUMNS):
        x, w = drawn(n_rows, n_terms), drawn(n_columns, n_terms, seed=1)
        name = f"{n_rows} x {n_terms} x {n_columns}"
        expected = exact(x, w.T)
        assert_close(matmul.linear(x, w)[0], expected, length=n_terms + 1, factor=8.0, name=f"linear {name}")
        dx = matmul.linear_dx(x, np.ascontiguousarray(w.T))
        assert_close(dx, expected, length=n_terms + 1, factor=8.0, name=f"linear_dx {name}")
        dw = matmul.linear_dw(np.ascontiguousarray(x.T), np.ascontiguousarray(w.T))
        assert_close(dw, expected, length=n_terms + 1, factor=8.0, name=f"linear_dw {name}")


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_panels_of_all_sizes(dtype):
    for n_rows, n_terms, n_columns in itertools.product((0, 1, 2, 3, 4, 14, 97), (0, 1, 33, 256, 300), COLUMNS):
        x, w, b = drawn(n_rows, n_terms), drawn(n_columns, n_terms, seed=1).astype(dtype), drawn(n_columns, seed=2)
        panels = pack_float_panels(w)
        assert unpack_float_panels(panels, n_columns).tobytes() == w.tobytes()
        y = matmul.float_panel_product(x, panels, b, n_outputs=n_columns)
        expected = exact(x, w.T) + b
        assert_close(y, expected, length=n_terms + 1, factor=8.0, name=f"{n_rows} x {n_terms} x {n_columns}")
        for start, stop in ((0, 1), (1, 3), (2, n_rows)):
            part = matmul.float_panel_product(x[start:stop], panels, b, n_outputs=n_columns)
            assert part.tobytes() == y[start:stop].tobytes()


@pytest.mark.parametrize(("n_terms", "n_columns"), [(600, 70), (31, 33), (256, 32)])
def test_rows_do_not_depend_on_those_beside_them(n_terms, n_columns):
    x, w = drawn(400, n_terms), drawn(n_columns, n_terms, seed=1)
    whole = matmul.linear(x, w, threads=2)[0]
    for start, stop in ((0, 1), (7, 9), (3, 27), (100, 399)):
        part = matmul.linear(x[start:stop], w)[0]
        assert part.tobytes() == whole[start:stop].tobytes()


def test_columns_do_not_depend_on_those_beside_them():
    x, w = drawn(50, 300), drawn(200, 300, seed=1)
    whole = matmul.linear(x, w)[0]
    for start, stop in ((0, 1), (5, 38), (31, 200)):
        part = matmul.linear(x, w[start:stop])[0]
        assert np.array_equal(part, whole[:, start:stop])


def test_not_a_number_stays_in_its_row_and_column():
    x, w = drawn(30, 40), drawn(50, 40, seed=1)
    x[13, 7], w[33, 5] = np.nan, np.inf
    bad = ~np.isfinite(matmul.linear(x, w)[0])
    expected = np.zeros((30, 50), bool)
    expected[13], expected[:, 33] = True, True
    assert np.array_equal(bad, expected)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"w must have shape \(4, 3\)"):
        matmul.linear(drawn(2, 3), drawn(4, 5))
    with pytest.raises(ValueError, match=r"w must have shape \(3, 5\)"):
        matmul.linear_dx(drawn(2, 3), drawn(4, 5))
    with pytest.raises(ValueError, match=r"x must have shape \(2, 5\)"):
        matmul.linear_dw(drawn(2, 3), drawn(4, 5))
