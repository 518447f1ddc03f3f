"""Quantized and fake-quantized Weights: what is particular to them."""

from __future__ import annotations

import dataclasses
import tracemalloc

import ml_dtypes
import numpy as np
import pytest

from minislm.dispatch import backend
from minislm.errors import MinislmError, ModelFileError, UnsupportedError, UsageError
from minislm.ops import tiles
from minislm.ops.formats import format_named
from minislm.ops.quantized import quantize_activations, quantized_product_int8
from minislm.weights import build
from minislm.weights.dense import Dense
from minislm.weights.fake_quantized import FakeQuantized
from minislm.weights.quantized import Quantized
from minislm.weights.sparse import Sparse


def test_scales_that_are_not_finite_are_refused(rng):
    weight = Quantized.nearest(rng.normal(size=(3, 40)).astype(np.float32), "int4-32")
    scales = weight.scales.copy()
    scales[1, 1] = np.nan
    with pytest.raises(UsageError) as caught:
        dataclasses.replace(weight, scales=scales)
    assert caught.value.code == "non_finite_weight"
    with pytest.raises(ModelFileError) as caught:
        build(weight.spec(), {**weight.arrays(), "scales": scales})
    assert caught.value.code == "non_finite_weight"


@pytest.mark.parametrize(("name", "zeros"), [("int4-32", np.zeros((3, 2), np.uint8)), ("uint4-32", None)])
def test_zeros_belong_to_asymmetric_formats(name, zeros):
    format = format_named(name)
    with pytest.raises(UsageError, match="zeros") as caught:
        Quantized(format, 40, np.zeros((3, 32), np.uint8), np.ones((3, 2), np.float16), zeros)
    assert caught.value.code == "size_mismatch"


def test_unknown_activations_are_refused(rng):
    with pytest.raises(UnsupportedError) as caught:
        Quantized.nearest(rng.normal(size=(2, 3)).astype(np.float32), "int8", "int8-rows")
    assert caught.value.code == "unknown_activations"


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_sixteen_bit_matrices_are_quantized_as_the_float32_of_the_same_numbers(rng, dtype):
    half = rng.normal(size=(5, 40)).astype(dtype)
    one, other = Quantized.nearest(half, "int4-32"), Quantized.nearest(half.astype(np.float32), "int4-32")
    assert one.codes.tobytes() == other.codes.tobytes()
    assert one.scales.tobytes() == other.scales.tobytes()


def test_rounding_a_matrix_in_tiles_changes_nothing(rng, monkeypatch):
    w = rng.normal(size=(9, 70)).astype(np.float32)
    whole = {name: Quantized.nearest(w, name) for name in ("int8", "uint4-64")}
    monkeypatch.setattr(tiles, "TILE_BYTES", 1200)
    for name, weight in whole.items():
        again = Quantized.nearest(w, name)
        assert all(np.array_equal(a, b) for a, b in zip(again.stored, weight.stored, strict=True))


def test_no_product_decodes_the_whole_matrix(rng, monkeypatch):
    monkeypatch.setattr(tiles, "TILE_BYTES", 2**16)
    w = rng.normal(size=(1024, 512)).astype(np.float32)  # 2 MiB
    mask = np.zeros(w.shape, bool)
    mask[:, ::2] = True
    weights = [
        *(Quantized.nearest(w, "int4-32", way) for way in ("float", "int8-row", "int8-32")),
        Dense(w.astype(np.float16)),
        *(Sparse.from_dense(w, mask, pattern, values) for pattern in ("bitmap", "2:4") for values in (None, "int4-32")),
    ]
    x, dy, ids = np.ones((1, 512), np.float32), np.ones((1, 1024), np.float32), np.array([5, 700])
    with backend("numpy"):
        for weight in weights:
            for verb, argument in ((weight.apply, x), (weight.apply_t, dy), (weight.rows, ids)):
                verb(argument)
                tracemalloc.start()
                verb(argument)
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                assert peak < w.nbytes / 4, f"{verb} of {weight.spec()} took {peak} bytes"


@pytest.mark.parametrize("group", [0, 32])
def test_activations_within_half_a_step_and_even_on_ties(group, rng):
    x = (rng.normal(size=(20, 70)) * 10.0 ** rng.integers(-30, 30, (20, 1))).astype(np.float32)
    codes, scales = quantize_activations(x, group=group)
    assert codes.dtype == np.int8
    assert np.abs(codes.astype(int)).max() == 127
    steps = np.repeat(scales.astype(np.float64), group or 70, axis=1)[:, :70]
    assert (np.abs(codes * steps - x) <= steps * (0.5 + 1e-4)).all()
    ties = np.array([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5]], np.float32)
    assert quantize_activations(ties, group=0)[0].tolist() == [[127, 0, 2, 2, 0, -2]]


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_strange_activations_spoil_their_row_and_no_other(strange, rng):
    x = rng.normal(size=(3, 70)).astype(np.float32)
    x[1, 40] = strange
    weight = Quantized.nearest(rng.normal(size=(4, 70)).astype(np.float32), "int4-32", "int8-32")
    y = weight.apply(x)
    assert np.isnan(y[1]).all()
    assert np.isfinite(y[[0, 2]]).all()


def test_the_tiniest_activations_are_zero_not_infinite():
    x = np.array([[1e-38, -1e-44], [0.0, -0.0]], np.float32)
    codes, scales = quantize_activations(x, group=0)
    assert not codes.any()
    assert not scales.any()


@pytest.mark.parametrize("n_inputs", [1, 255, 131_071])
@pytest.mark.parametrize("name", ["int8", "uint8"])
def test_integer_sums_of_aligned_extremes_are_exact(n_inputs, name):
    format = format_named(name)
    codes = np.full((2, n_inputs), format.code_range[1], np.uint8)
    codes[1] = format.code_range[0]
    zeros = None if format.symmetric else np.array([[0], [255]], np.uint8)
    steps = [127, -127] if format.symmetric else [255, -255]
    y = quantized_product_int8(
        np.full((1, n_inputs), 127.0, np.float32),
        format.pack(codes),
        np.ones((2, 1), np.float32),
        zeros,
        format=format,
        activations="int8-row",
    )
    assert y.tolist() == [[float(np.float32(127 * step * n_inputs)) for step in steps]]


def test_fake_quantization_is_for_symmetric_formats(rng):
    with pytest.raises(UnsupportedError, match="int4-64") as caught:
        FakeQuantized.nearest(rng.normal(size=(2, 3)).astype(np.float32), "uint4-64")
    assert caught.value.code == "asymmetric_training"


def test_a_zero_scale_can_be_learned_away():
    weight = FakeQuantized(np.array([[0.5, -0.25]]), format_named("int3"), np.zeros((1, 1)))
    assert not weight.dense().any()
    gradients = weight.grads(np.array([[1.0, 1.0]]), np.array([[1.0]]))
    assert not gradients[""].any()
    assert gradients["scales"].tolist() == [[(3.0 - 4.0) / 6.0**0.5]]


def test_descending_lsq_gradients_lowers_the_error(rng):
    w = rng.normal(size=(8, 64))
    weight = FakeQuantized.nearest(w, "int3")
    scales = weight.scales.astype(np.float64)

    def error(scales):
        return np.square(FakeQuantized(w, weight.format, scales).dense() - w).sum()

    before = error(scales)
    for _ in range(200):
        now = FakeQuantized(w, weight.format, scales)
        gradients = now.rows_grads(np.arange(8), 2 * (now.dense() - w))
        scales = scales - 0.005 * gradients["scales"]
    assert error(scales) < 0.9 * before


def test_errors_of_constructors_have_codes():
    for broken, code in (
        (lambda: Dense(np.zeros(3, np.float32)), "bad_shape"),
        (lambda: Dense(np.zeros((3, 3), np.int32)), "unknown_dtype"),
        (lambda: Dense(np.zeros((3, 2))) @ Dense(np.zeros((3, 2))), "size_mismatch"),
        (lambda: Dense(np.zeros((3, 2))) + Dense(np.zeros((2, 3))), "size_mismatch"),
        (lambda: build({"type": 3}, {}), "bad_field_type"),
        (lambda: Dense(np.zeros((1, 1))).repacked("panels"), "unknown_layout"),
    ):
        with pytest.raises(MinislmError) as caught:
            broken()
        assert caught.value.code == code


def test_specs_nested_without_end_are_refused():
    spec = {"type": "dense", "shape": [1, 1]}
    name = ""
    for _ in range(20_000):
        spec = {"type": "sum", "a": spec, "b": {"type": "dense", "shape": [1, 1]}}
    with pytest.raises(ModelFileError):
        build(spec, {name: np.zeros((1, 1))})


def test_a_scale_for_32_inputs_keeps_small_ones_beside_large_ones(rng):
    w = rng.normal(size=(4, 64)).astype(np.float32)
    w[:, 32:] = 0.0
    x = rng.normal(size=(3, 64)).astype(np.float32)
    x[:, 32:] *= 1e6
    error = {}
    for way in ("float", "int8-row", "int8-32"):
        weight = Quantized.nearest(w, "int4-32", way)
        error[way] = np.abs(weight.apply(x) - x @ weight.dense().T).max()
    assert error["float"] < 1e-5
    assert 1e-3 < error["int8-32"] < 0.2
    assert error["int8-row"] > 1.0
