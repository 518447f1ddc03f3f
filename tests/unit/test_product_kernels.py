"""What is particular to the product kernels: exact sums of bytes, tails, layouts, and indices that lie."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import mmap
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from minislm.ops import load_op
from minislm.ops.bitmap import pack_bitmap
from minislm.ops.csr import pack_csr
from minislm.ops.formats import format_named
from minislm.ops.masked_panels import pack_masked_panels
from minislm.ops.nm import nm_entries, pack_nm
from minislm.ops.panels import RoundedRows, pack_groups
from minislm.ops.quantized import activation_group
from minislm.testing.tolerances import assert_close
from minislm.weights.quantized import Quantized
from minislm.weights.sparse import Sparse

kernels = pytest.importorskip("minislm.kernels")

PRODUCTS = (
    *("quantize_activations", "quantized_product", "quantized_product_int8", "quantized_rows", "low_rank_product"),
    *("bitmap_product", "nm_product", "csr_product"),
)
# Around the widths of registers, blocks, paddings and runs of the compiled code.
LENGTHS = (*range(20), 31, 32, 33, 47, 63, 64, 65, 127, 128, 129, 255, 256, 257, 300, 511, 512, 513, 700, 1024, 1100)


def rounded(load, x_NI, *, group, scale=None, out=None, threads=1):
    """Codes and scales of activations, by the compiled kernel."""
    rows = load("round_activations")(x_NI, group=group, scale=scale, threads=threads)
    codes, scales, _ = RoundedRows.of(rows, x_NI.shape[1])
    n_groups = max(1, -(-x_NI.shape[1] // group)) if group else 1
    return codes[:, : x_NI.shape[1]].copy(), scales[:, :n_groups].copy()


def product(load, x_NI, codes, scales, zeros=None, *, format, activations, activation_scale=None, out=None, threads=1):
    """The product with rounded rows, by the compiled kernels."""
    group = activation_group(activations, activation_scale)
    rows = load("round_activations")(x_NI, group=group, scale=activation_scale, threads=threads)
    panels = load_op("pack_panels")(codes, n_inputs=x_NI.shape[1], format=format), pack_groups(scales)
    panels += () if zeros is None else (pack_groups(zeros),)
    options = {"format": format, "group": group, "n_inputs": x_NI.shape[1], "n_outputs": len(codes)}
    return load("panel_product")(rows, *panels, **options, out=out, threads=threads)


def decoded(load, x_NI, codes, scales, zeros=None, *, format, out=None, threads=1):
    """The product with float rows, by the compiled kernel."""
    panels = load_op("pack_panels")(codes, n_inputs=x_NI.shape[1], format=format), pack_groups(scales)
    panels += () if zeros is None else (pack_groups(zeros),)
    return load("decoded_panel_product")(x_NI, *panels, format=format, n_outputs=len(codes), out=out, threads=threads)


def masked(load, x_NI, values, places, scales=None, zeros=None, *, n, m, format=None, out=None, threads=1):
    """The product with an n:m matrix, by the compiled kernel."""
    n_values = -(-x_NI.shape[1] // m) * n
    stored = values if format is None else format.unpack(values, n_values)
    kept_OI, stored_OI = nm_entries(stored, places, n, m, x_NI.shape[1])
    bits = None if format is None else format.bits
    panels = pack_masked_panels(lambda r: (kept_OI[r], stored_OI[r]), *kept_OI.shape, stored_OI.dtype, bits)
    panels += () if scales is None else (pack_groups(scales), None if zeros is None else pack_groups(zeros))
    in_inputs = format and dataclasses.replace(format, group=format.group // n * m)
    options = {"format": in_inputs, "n_outputs": len(values), "out": out, "threads": threads}
    return load("decoded_masked_panel_product")(x_NI, *panels, **options)


# Where matrices lie in panels, and rows are rounded once for all products, these say the same by them.
BY_PANELS = {
    "quantize_activations": rounded,
    "quantized_product": decoded,
    "quantized_product_int8": product,
    "nm_product": masked,
}


@pytest.fixture(params=[*(f"cython-{name}" for name in kernels.instruction_set().available), "numba"])
def kernel(request):
    """Return what loads a kernel by its op's name, for each technology and instruction set in turn."""
    technology, _, name = request.param.partition("-")
    if technology == "numba":
        pytest.importorskip("numba")
    before = kernels.instruction_set().chosen
    if name:
        kernels.instruction_set(name)

    def load(op):
        if technology == "cython" and op in BY_PANELS:
            return functools.partial(BY_PANELS[op], load)
        row = next(row for row in kernels.KERNELS if (row.op, row.technology) == (op, technology))
        module, _, function = row.function.partition(":")
        return getattr(importlib.import_module(f"minislm.kernels.{module}"), function)

    load.technology = technology
    yield load
    if before:
        kernels.instruction_set(before)


def rows(n_rows, n_inputs, seed=0):
    return np.random.default_rng(seed).normal(size=(n_rows, n_inputs)).astype(np.float32)


def extreme(n_inputs, format, sign):
    """Rows of x and codes that are as large as they get and never cancel: (x, codes, scales, zeros, exact sum)."""
    low, high = format.code_range
    codes_OI = np.full((3, n_inputs), high, np.uint8)
    codes_OI[1] = low
    codes_OI[2, ::2] = low
    zeros = None if format.symmetric else np.array([[0], [high], [low]], np.uint8)
    steps_OI = format.code_steps(codes_OI, zeros).astype(np.int64)
    x_NI = sign * np.sign(steps_OI).astype(np.float32)
    x_NI[x_NI == 0] = 1.0
    exact_NO = (127 * x_NI.astype(np.int64)) @ steps_OI.T
    return x_NI, format.pack(codes_OI), np.ones((3, 1), np.float32), zeros, exact_NO


# Sums of products of 255 and 128 surely fit 32 bits up to a length of 65,793, of 128 and 128 up to 131,071.
@pytest.mark.parametrize("n_inputs", [1, 31, 512, 65_793, 65_794, 131_071, 131_072, 262_145])
@pytest.mark.parametrize("name", ["int8", "uint8", "int4", "uint3", "uint5", "uint6", "int7", "nf4", "ternary"])
def test_sums_of_bytes_are_exact_at_their_extremes(kernel, name, n_inputs):
    format = format_named(name)
    for sign in (1, -1):
        x_NI, codes, scales, zeros, exact_NO = extreme(n_inputs, format, sign)
        product = kernel("quantized_product_int8")
        y_NO = product(x_NI, codes, scales, zeros, format=format, activations="int8-row")
        expected = exact_NO.astype(np.float32) * (np.float32(1.0) / np.float32(127))
        assert np.array_equal(y_NO, expected)  # one float32 rounding of an exact sum
        row_NO = product(x_NI[:1], codes, scales, zeros, format=format, activations="int8-row")
        assert np.array_equal(row_NO, expected[:1])


@pytest.mark.parametrize("name", ["int8", "uint4-32", "int8-128", "int2-64"])
def test_bytes_give_what_the_op_gives_from_the_same_exact_sums(kernel, name):
    for n_inputs in LENGTHS:
        x_NI, stored = rows(5, n_inputs), Quantized.nearest(rows(6, n_inputs, seed=1), name)
        for activations in ("int8-row", "int8-32", "static"):
            options = {"format": stored.format, "activations": activations}
            options |= {"activation_scale": 0.01} if activations == "static" else {}
            expected = load_op("quantized_product_int8")(x_NI, *stored.stored, **options)
            y_NO = kernel("quantized_product_int8")(x_NI, *stored.stored, **options)
            if name == "int8" and activations != "int8-32":
                assert np.array_equal(y_NO, expected)
            assert_close(y_NO, expected, length=max(1, n_inputs // 32), name=f"{n_inputs} inputs")


@pytest.mark.parametrize("n_rows", [1, 3, 9])
@pytest.mark.parametrize("name", ["int8", "int4-32", "uint4-64"])
def test_rows_longer_than_32_bits_hold(kernel, name, n_rows):
    n_inputs = 66_000  # beyond 65,536, over which sums of bytes times bytes surely fit
    x_NI, stored = rows(n_rows, n_inputs), Quantized.nearest(rows(3, n_inputs, seed=1), name)
    options = {"format": stored.format, "activations": "int8-row" if name == "int8" else "int8-32"}
    expected = load_op("quantized_product_int8")(x_NI, *stored.stored, **options)
    assert_close(kernel("quantized_product_int8")(x_NI, *stored.stored, **options), expected, length=n_inputs // 32)


@pytest.mark.parametrize("activations", ["int8-row", "int8-32"])
@pytest.mark.parametrize(
    "name", ["int8", "int4", "uint8-32", "int4-32", "uint3-64", "int8-128", "int2-32", "int5-64", "uint6", "int7-32"]
)
def test_rows_of_x_do_not_depend_on_each_other(kernel, name, activations):
    if kernel.technology != "cython":
        pytest.skip("BLAS may add in another order")
    x_NI, stored = rows(401, 1130), Quantized.nearest(rows(40, 1130, seed=1), name)
    product, options = kernel("quantized_product_int8"), {"format": stored.format, "activations": activations}
    together = product(x_NI, *stored.stored, **options)
    assert_close(together, load_op("quantized_product_int8")(x_NI, *stored.stored, **options), length=36)
    for first, n_rows in ((0, 1), (3, 2), (5, 6), (2, 7), (11, 8), (7, 15), (1, 16), (30, 17), (4, 33), (60, 97)):
        alone = product(x_NI[first : first + n_rows].copy(), *stored.stored, **options)
        assert alone.tobytes() == together[first : first + n_rows].tobytes()


@pytest.mark.parametrize("group", [0, 32, 64])
def test_rounded_activations_are_those_of_the_op(kernel, group):
    if group == 64 and kernel.technology == "cython":
        pytest.skip("rounded rows have scales for 32 inputs, or for all")
    for n_inputs in LENGTHS[kernel.technology == "cython" :]:  # a record of no inputs has no scale
        x_NI = rows(4, n_inputs) * np.float32([[1e-30], [1.0], [1e30], [0.0]])
        x_NI[1, ::3] = (np.arange(len(x_NI[1, ::3])) % 254 - 126.5) / 127  # halves, which go to the even code
        x_NI[1, :1] = 1.0
        for scale in (None, 0.0, 1e-38, 0.5 / 127, 1.0, 1e29):
            codes, scales = kernel("quantize_activations")(x_NI, group=group, scale=scale)
            expected_codes, expected_scales = load_op("quantize_activations")(x_NI, group=group, scale=scale)
            assert np.array_equal(codes, expected_codes)
            assert np.array_equal(scales, expected_scales)


@pytest.mark.parametrize(
    "name", ["int8", "int4-32", "uint4-128", "int3", "uint3-64", "int2-32", "int5", "int6-32", "int7"]
)
def test_every_length_of_a_row(kernel, name):
    format = format_named(name)
    for n_inputs in LENGTHS:
        stored = Quantized.nearest(rows(5, n_inputs, seed=2), name).stored
        x_NI = rows(3, n_inputs)
        decoded = load_op("quantized_rows")(np.arange(5), *stored, format=format, n_inputs=n_inputs)
        again = kernel("quantized_rows")(np.arange(5)[::-1], *stored, format=format, n_inputs=n_inputs)
        assert np.array_equal(again, decoded[::-1])
        y_NO = kernel("quantized_product")(x_NI, *stored, format=format)
        sizes_NO = np.abs(x_NI) @ np.abs(decoded).T
        assert_close(y_NO, x_NI.astype(np.float64) @ decoded.T, length=n_inputs, scale=sizes_NO + 1e-30)


@pytest.mark.parametrize("n_rows", [1, 3, 4, 16, 33])
@pytest.mark.parametrize("values", [None, "int8", "int4-32", "uint3-64"])
@pytest.mark.parametrize("pattern", ["bitmap", "2:4", "4:8", "1:3", "csr"])
def test_sparse_products_equal_the_dense_one(kernel, pattern, values, n_rows):
    rng = np.random.default_rng(n_rows)
    n, m = map(int, pattern.split(":")) if ":" in pattern else (1, 1)
    values = "int8-32" if values == "int8" and pattern in ("bitmap", "csr") else values
    for n_inputs in (1, 7, 64, 300, 1030):
        w_OI = rows(9, n_inputs, seed=3)
        order = rng.random((9, -(-n_inputs // m), m)).argsort(axis=2)
        mask_OI = (order < n).reshape(9, -1)[:, :n_inputs] if m > 1 else rng.random(w_OI.shape) < 0.5
        mask_OI[4] = False
        sparse = Sparse.from_dense(w_OI, mask_OI, pattern, values)
        family, constants, options = sparse._product
        x_NI, dense = rows(n_rows, n_inputs, seed=4), sparse.dense()
        y_NO = kernel(f"{family}_product")(x_NI, *constants, **options)
        sizes_NO = np.abs(x_NI) @ np.abs(dense).T
        assert_close(y_NO, x_NI.astype(np.float64) @ dense.T, length=n_inputs, scale=sizes_NO + 1e-30)
        assert not y_NO[:, 4].any()


@pytest.mark.parametrize("n_rows", [2, 20])
@pytest.mark.parametrize("values", [None, "int8-32", "int4-32", "uint3-64"])
@pytest.mark.parametrize("pattern", ["quantized", "bitmap", "2:4", "csr"])
def test_tiles_may_be_cut_anywhere(kernel, monkeypatch, pattern, values, n_rows):
    monkeypatch.setattr(importlib.import_module("minislm.kernels.compressed"), "TILE", 250)
    w_OI, x_NI = rows(23, 70, seed=11), rows(n_rows, 70)
    if pattern == "quantized":
        stored = Quantized.nearest(w_OI, values or "int8")
        op, constants, options = "quantized_product", stored.stored, {"format": stored.format}
    else:
        mask_OI = np.arange(70) % 4 < 2 if pattern == "2:4" else rows(23, 70, seed=12) > 0
        family, constants, options = Sparse.from_dense(
            w_OI, np.broadcast_to(mask_OI, (23, 70)), pattern, values
        )._product
        op = f"{family}_product"
    assert_close(kernel(op)(x_NI, *constants, **options), load_op(op)(x_NI, *constants, **options), length=70)


def test_stored_zeros_and_empty_matrices(kernel):
    for name in ("int8", "int4-32", "uint4-32"):
        stored = Quantized.nearest(np.zeros((3, 70), np.float32), name)
        x_NI = rows(2, 70)
        assert not kernel("quantized_product")(x_NI, *stored.stored, format=stored.format).any()
        for activations in ("int8-row", "int8-32"):
            options = {"format": stored.format, "activations": activations}
            assert not kernel("quantized_product_int8")(x_NI, *stored.stored, **options).any()
    for n_rows, n_outputs in ((0, 3), (2, 0), (0, 0)):
        x_NI, w_OI = rows(n_rows, 5), rows(n_outputs, 5)
        stored = Quantized.nearest(w_OI, "int4-32")
        assert kernel("quantized_product")(x_NI, *stored.stored, format=stored.format).shape == (n_rows, n_outputs)
        assert kernel("low_rank_product")(x_NI, rows(0, 5), rows(n_outputs, 0)).shape == (n_rows, n_outputs)
        everything = np.ones(w_OI.shape, np.bool_)
        assert kernel("bitmap_product")(x_NI, *pack_bitmap(w_OI, everything)).shape == (n_rows, n_outputs)
        assert kernel("csr_product")(x_NI, *pack_csr(w_OI, everything)).shape == (n_rows, n_outputs)


def calls(kernel, n_rows=3):
    """Return for each op a kernel, its arguments and its options, big enough to be shared among threads."""
    w_OI, x_NI = rows(1501, 290, seed=5), rows(n_rows, 290)
    mask_OI = rows(1501, 290, seed=6) > 0
    order = np.random.default_rng(7).random((1501, 73, 4)).argsort(axis=2)
    mask24_OI = (order < 2).reshape(1501, -1)[:, :290]
    stored, bytes_ = Quantized.nearest(w_OI, "uint4-64"), Quantized.nearest(w_OI, "int8")
    sparse = Sparse.from_dense(w_OI, mask_OI, "bitmap", "int4-32")
    made = {
        "quantized_product": ((x_NI, *stored.stored), {"format": stored.format}),
        "quantized_product_int8": ((x_NI, *bytes_.stored), {"format": bytes_.format, "activations": "int8-row"}),
        "quantized_rows": ((np.arange(1501), *stored.stored), {"format": stored.format, "n_inputs": 290}),
        "quantize_activations": ((w_OI,), {"group": 32}),
        "low_rank_product": ((x_NI, rows(700, 290, seed=8), rows(900, 700, seed=9)), {}),
        "bitmap_product": ((x_NI, *sparse._product[1]), sparse._product[2]),
        "nm_product": ((x_NI, *pack_nm(w_OI * mask24_OI, mask24_OI, n=2, m=4)), {"n": 2, "m": 4}),
        "csr_product": ((x_NI, *pack_csr(w_OI, mask_OI)), {}),
    }
    assert made.keys() == set(PRODUCTS)
    return [(kernel(op), args, options) for op, (args, options) in made.items()]


def test_threads_do_not_change_a_bit(kernel):
    for function, args, options in [*calls(kernel), *calls(kernel, n_rows=20)]:
        results = [function(*args, **options, threads=threads) for threads in (1, 2, 3, 7)]
        firsts = [result[0] if isinstance(result, tuple) else result for result in results]
        assert all(first.tobytes() == firsts[0].tobytes() for first in firsts)


def test_calls_at_once_do_not_disturb_each_other(kernel):
    work = [call for call in calls(kernel) if len(call[1]) > 1]  # all but the one that returns two arrays
    expected = [function(*args, **options).tobytes() for function, args, options in work]
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(f, *args, **options, threads=2) for _ in range(3) for f, args, options in work]
    assert [future.result().tobytes() for future in futures] == 3 * expected


@pytest.fixture
def before_a_hole():
    """Return what copies an array to where readable memory ends: one byte more, and the process is no more."""
    size, maps = 1 << 16, []
    with tempfile.TemporaryFile() as file:

        def place(array):
            os.ftruncate(file.fileno(), 2 * size)
            pages = mmap.mmap(file.fileno(), 2 * size, flags=mmap.MAP_PRIVATE)
            end = (
                np.frombuffer(pages, np.uint8, array.nbytes, size - array.nbytes).view(array.dtype).reshape(array.shape)
            )
            end[...] = array
            end.flags.writeable = False
            os.ftruncate(file.fileno(), size)  # the second half of the mapping now has nothing behind it
            maps.append(pages)
            return end

        yield place


def test_nothing_is_read_behind_an_array(kernel, before_a_hole):
    for n_inputs in (1, 32, 100, 256, 300):
        w_OI, x_NI = rows(3, n_inputs), rows(2, n_inputs)
        mask_OI = rows(3, n_inputs, seed=1) > 0
        mask24_OI = np.arange(n_inputs) % 4 < np.array([[2], [2], [1]])
        cases = [("low_rank_product", (rows(5, n_inputs), rows(7, 5)), {})]
        for name in ("int8", "int4-32", "uint3", "int2-128", "int5", "nf4-32", "ternary"):
            stored = Quantized.nearest(w_OI, name)
            cases += [
                ("quantized_product", stored.stored, {"format": stored.format}),
                ("quantized_product_int8", stored.stored, {"format": stored.format, "activations": "int8-32"}),
            ]
        for pattern, mask, values in (
            *(("bitmap", mask_OI, None), ("bitmap", mask_OI, "int4-32"), ("csr", mask_OI, None)),
            *(("2:4", mask24_OI, None), ("2:4", mask24_OI, "int3"), ("csr", mask_OI, "int8-32")),
        ):
            family, constants, options = Sparse.from_dense(w_OI, mask, pattern, values)._product
            cases.append((f"{family}_product", constants, options))
        for op, constants, options in cases:
            constants = tuple(array for array in constants if array is not None)
            expected = load_op(op)(x_NI, *constants, **options)
            for position, array in enumerate(constants):
                placed = (*constants[:position], before_a_hole(array), *constants[position + 1 :])
                assert_close(kernel(op)(x_NI, *placed, **options), expected, length=max(n_inputs, 8), name=op)
            assert_close(kernel(op)(before_a_hole(x_NI), *constants, **options), expected, length=max(n_inputs, 8))


@pytest.mark.parametrize(
    "starts", [[0, 2, 1, 3], [0, 1, 2, 9], [0, 1, 2, 2], [-1, 1, 2, 3], [1, 1, 2, 3], [0, 2**62, 2, 3]]
)
def test_starts_that_lie_are_refused(kernel, starts):
    w_OI = np.eye(3, 5, dtype=np.float32)
    mask, values, _ = pack_bitmap(w_OI, w_OI != 0)
    _, columns, _ = pack_csr(w_OI, w_OI != 0)
    for n_rows in (1, 3, 20):
        with pytest.raises(ValueError, match=r"starts|values|columns|row"):
            kernel("bitmap_product")(rows(n_rows, 5), mask, values, np.array(starts))
        with pytest.raises(ValueError, match=r"starts|values|columns|row"):
            kernel("csr_product")(rows(n_rows, 5), values, columns, np.array(starts))
    with pytest.raises(ValueError, match="starts"):
        kernel("bitmap_product")(rows(2, 5), mask, values, np.array([0, 1, 3]))


@pytest.mark.parametrize("column", [5, -1, 2**31 - 1, -(2**31)])
def test_columns_outside_are_refused(kernel, column):
    w_OI = np.eye(3, 5, dtype=np.float32)
    values, columns, starts = pack_csr(w_OI, w_OI != 0)
    columns[1] = column
    for n_rows in (1, 3, 20):
        with pytest.raises(ValueError, match="row 1"):
            kernel("csr_product")(rows(n_rows, 5), values, columns, starts)


@pytest.mark.parametrize("bits", [0, 3, 31])
def test_masks_that_do_not_count_the_values_are_refused(kernel, bits):
    w_OI = np.eye(3, 5, dtype=np.float32)
    mask, values, starts = pack_bitmap(w_OI, w_OI != 0)
    mask[1] = bits
    for n_rows in (1, 3, 20):
        with pytest.raises(ValueError, match="row 1"):
            kernel("bitmap_product")(rows(n_rows, 5), mask, values, starts)


def test_a_mask_of_more_than_all_values_reads_none_of_them(kernel, before_a_hole):
    w_OI = np.eye(3, 600, dtype=np.float32)
    mask, values, starts = pack_bitmap(w_OI, w_OI != 0)
    mask[2] = 255
    for n_rows in (1, 20):
        with pytest.raises(ValueError, match="row 2"):
            kernel("bitmap_product")(rows(n_rows, 600), mask, before_a_hole(values), starts)


def test_arrays_of_other_sizes_are_refused_by_name(kernel):
    stored = Quantized.nearest(rows(4, 70), "uint4-32")
    codes, scales, zeros = stored.stored
    x_NI, lookup, options = rows(2, 70), kernel("quantized_rows"), {"format": stored.format}
    for arrays, name in (
        ((codes[:, :-1], scales, zeros), "codes"),
        ((codes, scales[:, :-1], zeros), "scales"),
        ((codes, scales[:-1], zeros), "scales"),
        ((codes, scales, zeros[:, 1:]), "zeros"),
    ):
        with pytest.raises(ValueError, match=name):
            lookup(np.array([0]), *arrays, n_inputs=70, **options)
    with pytest.raises(ValueError, match="codes"):
        lookup(np.array([0]), codes, scales, zeros, n_inputs=170, **options)
    with pytest.raises(IndexError, match="ids"):
        kernel("quantized_rows")(np.array([4]), codes, scales, zeros, n_inputs=70, **options)
    with pytest.raises(ValueError, match="right"):
        kernel("low_rank_product")(x_NI, rows(3, 71), rows(5, 3))
    with pytest.raises(ValueError, match="left"):
        kernel("low_rank_product")(x_NI, rows(3, 70), rows(5, 2))
    if kernel.technology == "cython":
        return
    values, places = pack_nm(np.eye(3, 8, dtype=np.float32), np.eye(3, 8) > 0, n=2, m=4)
    with pytest.raises(ValueError, match="places"):
        kernel("nm_product")(rows(1, 8), values, places[:, :-1], n=2, m=4)
    with pytest.raises(ValueError, match="values"):
        kernel("nm_product")(rows(1, 8), values[:, :-1], places, n=2, m=4)
    with pytest.raises(ValueError, match="n:m"):
        kernel("nm_product")(rows(1, 8), values, places, n=4, m=4)


def test_more_rows_than_a_tile_is_decoded_for(kernel):
    x_NI, w_OI, rng = rows(600, 70), rows(37, 70, seed=1), np.random.default_rng(2)
    stored, mask_OI = Quantized.nearest(w_OI, "int3-32"), rng.random(w_OI.shape) < 0.5
    halves_OI = (rng.random((37, 35, 2)).argsort(axis=2) < 1).reshape(w_OI.shape)
    products = [("quantized_product", stored.stored, {"format": stored.format})]
    for pattern, kept_OI in (("bitmap", mask_OI), ("1:2", halves_OI), ("csr", mask_OI)):
        family, constants, options = Sparse.from_dense(w_OI, kept_OI, pattern)._product
        products.append((f"{family}_product", constants, options))
    for op, constants, options in products:
        y_NO = kernel(op)(x_NI, *constants, **options, threads=2)
        assert_close(y_NO, load_op(op)(x_NI, *constants, **options), length=70, factor=8.0, name=op)


def test_panels_of_other_sizes_are_refused_by_name(kernel):
    if kernel.technology != "cython":
        pytest.skip("only compiled kernels multiply panels")
    panels = Quantized.nearest(rows(20, 70), "uint4-32").repacked("panels")
    lines, scales, zeros, b_O = panels.lines, panels.scales, panels.zeros, np.ones(20, np.float32)
    x_NI = rows(2, 70)
    rounded_NP = load_op("round_activations")(x_NI, group=32)
    options = {"format": panels.format, "n_outputs": 20}
    for product, x, more in (
        (kernel("decoded_panel_product"), x_NI, options),
        (kernel("panel_product"), rounded_NP, {**options, "group": 32, "n_inputs": 70}),
    ):
        for arrays, name in (
            ((lines[:, :-1], scales, zeros, b_O), "lines"),
            ((lines[:-1], scales, zeros, b_O), "lines"),
            ((lines, scales[:, :-1], zeros, b_O), "scales"),
            ((lines, scales, zeros[..., 1:], b_O), "zeros"),
            ((lines, scales, zeros, b_O[1:]), "b must"),
        ):
            with pytest.raises(ValueError, match=name):
                product(x, *arrays, **more)
        with pytest.raises(ValueError, match=r"lines|rounded"):
            product(np.tile(x, 3), lines, scales, zeros, **more)


def test_places_that_point_beyond_a_group_read_nothing_foreign(kernel):
    if kernel.technology == "cython":
        pytest.skip("places are masks there")
    values, places = pack_nm(np.eye(2, 6, dtype=np.float32), np.eye(2, 6) > 0, n=1, m=3)
    wild = np.full_like(places, 255)  # place 3 in groups of 3
    for n_rows in (1, 4, 20):
        y_NO = kernel("nm_product")(np.ones((n_rows, 6), np.float32), values, wild, n=1, m=3)
        assert np.isfinite(y_NO).all()


def test_scales_of_every_float16_are_read_right(kernel):
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    scales_OJ = halves[np.isfinite(halves)].reshape(-1, 32)
    codes_OP = np.full((len(scales_OJ), 32 * 32), 129, np.uint8)  # one step
    w_NI = kernel("quantized_rows")(
        np.arange(len(scales_OJ)), codes_OP, scales_OJ, format=format_named("int8-32"), n_inputs=1024
    )
    assert np.array_equal(w_NI[:, ::32].view(np.int32), scales_OJ.astype(np.float32).view(np.int32))
