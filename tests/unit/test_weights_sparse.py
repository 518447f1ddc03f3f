"""Sparse and masked Weights: what is particular to them, above all what a file may not make them believe."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from minislm.errors import ModelFileError, UnsupportedError, UsageError
from minislm.ops.bits import pack_bits
from minislm.testing.cases.nm import random_nm_mask
from minislm.weights import build
from minislm.weights.dense import Dense
from minislm.weights.masked import Masked
from minislm.weights.quantized import Quantized
from minislm.weights.sparse import Sparse


def assert_refused(weight, arrays, code):
    with pytest.raises(ModelFileError) as caught:
        build(weight.spec(), {**weight.arrays(), **arrays})
    assert caught.value.code == code, caught.value


@pytest.fixture
def csr(rng):
    w = rng.normal(size=(3, 10)).astype(np.float32)
    mask = np.zeros(w.shape, bool)
    mask[0, [1, 4]] = mask[2, [0, 3, 9]] = True
    return Sparse.from_dense(w, mask, "csr")


@pytest.mark.parametrize(
    "starts", [[0, 2, 2, 4], [0, 2, 2, 6], [1, 2, 2, 5], [0, 3, 2, 5], [0, -1, 2, 5], [0, 2**40, 2, 5]]
)
def test_starts_must_increase_from_zero_to_the_number_of_values(csr, starts):
    assert csr.index["starts"].tolist() == [0, 2, 2, 5]
    assert_refused(csr, {"starts": np.array(starts)}, "bad_index")


@pytest.mark.parametrize(
    "columns", [[1, 4, 0, 3, 10], [1, 4, -1, 3, 9], [4, 1, 0, 3, 9], [1, 1, 0, 3, 9], [1, 4, 0, 9, 9]]
)
def test_columns_must_increase_within_the_row(csr, columns):
    assert csr.index["columns"].tolist() == [1, 4, 0, 3, 9]
    assert_refused(csr, {"columns": np.array(columns, np.int32)}, "bad_index")


def test_columns_may_start_again_in_the_next_row(csr):
    assert build(csr.spec(), {**csr.arrays(), "columns": np.array([8, 9, 0, 1, 2], np.int32)}).shape == (3, 10)


@pytest.mark.parametrize("change", [-1, 1])
def test_as_many_values_as_columns(csr, change):
    values = np.ones((1, 5 + change), np.float32)
    spec = csr.spec()
    spec["values"]["shape"] = [1, 5 + change]
    with pytest.raises(ModelFileError) as caught:
        build(spec, {**csr.arrays(), "values": values})
    assert caught.value.code == "size_mismatch"


def test_a_mask_keeps_as_many_as_there_are_values(rng):
    w = rng.normal(size=(3, 10)).astype(np.float32)
    weight = Sparse.from_dense(w, w > 0, "bitmap")
    more = weight.index["mask"].copy()
    more[1, 0] ^= 1
    assert_refused(weight, {"mask": more}, "size_mismatch")
    beyond = weight.index["mask"].copy()
    beyond[2, 1] |= 1 << 2  # input 10 of 10
    assert_refused(weight, {"mask": beyond}, "bad_index")


@pytest.mark.parametrize(("pattern", "places"), [("2:4", [1, 1]), ("2:4", [2, 1]), ("2:5", [0, 5]), ("2:5", [3, 7])])
def test_places_increase_inside_a_group_and_stay_in_it(pattern, places, rng):
    n, m = (int(number) for number in pattern.split(":"))
    w = rng.normal(size=(2, 3 * m)).astype(np.float32)
    weight = Sparse.from_dense(w, random_nm_mask(rng, 2, 3 * m, n, m), pattern)
    bits = (m - 1).bit_length()
    codes = np.array([[0, 1, *places, 2, 3], [0, 1, 1, 2, 2, 3]], np.uint8)
    assert_refused(weight, {"places": pack_bits(codes, bits, -(-6 * bits // 8))}, "bad_index")


def test_a_group_keeps_at_most_n():
    w = np.ones((2, 9), np.float32)
    mask = np.zeros(w.shape, bool)
    mask[1, 4:7] = True
    with pytest.raises(UsageError, match="output 1, group 1") as caught:
        Sparse.from_dense(w, mask, "2:4")
    assert caught.value.code == "bad_mask"


@pytest.mark.parametrize("pattern", ["", "2:", "4:2", "0:4", "4:4", "2:257", "02:4", "2:4\n", "blocks", "-1:4"])
def test_unknown_patterns_are_refused(pattern):
    w = np.ones((2, 8), np.float32)
    with pytest.raises(UnsupportedError) as caught:
        Sparse.from_dense(w, np.zeros(w.shape, bool), pattern)
    assert caught.value.code == "unknown_pattern"


def test_values_multiply_as_they_are_stored(csr):
    stored = csr.values.array
    for values in (
        Dense(stored.astype(np.float16)),
        Quantized.nearest(stored, "int8", "int8-row"),
        Masked.from_dense(stored, stored > 0),
    ):
        with pytest.raises(UsageError) as caught:
            dataclasses.replace(csr, values=values)
        assert caught.value.code == "bad_values"


@pytest.mark.parametrize("pattern", ["bitmap", "csr", "2:4"])
def test_infinities_that_are_dropped_leave_no_trace(pattern):
    w = np.array([[1.0, np.inf, np.nan, 2.0, 3.0]], np.float32)
    weight = Sparse.from_dense(w, np.isfinite(w), pattern)
    assert weight.dense().tolist() == [[1.0, 0.0, 0.0, 2.0, 3.0]]
    masked = Masked.from_dense(w, np.isfinite(w))
    assert masked.dense().tolist() == [[1.0, 0.0, 0.0, 2.0, 3.0]]


@pytest.mark.parametrize(
    ("pattern", "values", "bits"),
    [("bitmap", None, 17), ("2:4", None, 17), ("2:4", "int4-32", 3.25), ("bitmap", "int8-32", 5.25)],
)
def test_half_of_the_weights_take_about_half_of_the_bytes(pattern, values, bits, rng):
    w = rng.normal(size=(64, 256)).astype(np.float32)
    mask = np.zeros(w.shape, bool)
    mask[:, ::2] = True
    weight = Sparse.from_dense(w, mask, pattern, values)
    assert weight.bits_per_weight == pytest.approx(bits, abs=0.01)


def test_what_a_mask_drops_keeps_its_number_and_gets_no_gradient(rng):
    w, mask = rng.normal(size=(4, 9)), rng.random((4, 9)) < 0.5
    weight = Masked.from_dense(w, mask)
    assert weight.arrays()[""] is w
    gradients = weight.grads(rng.normal(size=(3, 9)), rng.normal(size=(3, 4)))
    assert not gradients[""][~mask].any()
    assert gradients[""][mask].all()
