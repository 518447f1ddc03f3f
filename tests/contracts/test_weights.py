"""The laws that every Weight keeps, over the table of storages and over expressions; the table equals the folder."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import numpy as np
import pytest

import minislm.weights
from minislm.dispatch import TIERS, backend
from minislm.errors import UnsupportedError
from minislm.files import safetensors
from minislm.ops import tiles
from minislm.ops.blocks import BLOCK_FORMATS
from minislm.ops.quantized import ACTIVATION_GROUPS
from minislm.testing import rounding
from minislm.testing import weights as laws
from minislm.testing.samples import EXPRESSIONS, LAYOUTS, STORAGES, laid_out, parts, sample_expression, sample_weights
from minislm.weights import WEIGHTS, build
from minislm.weights.base import Weight, below, under
from minislm.weights.blocks import Blocks
from minislm.weights.fake_quantized import FakeQuantized
from minislm.weights.quantized import Quantized
from minislm.weights.sparse import Sparse

SHAPES = ((1, 1), (5, 7), (3, 33), (6, 70))


def members(name, rng, dtype=np.float32, shapes=SHAPES):
    for n_outputs, n_inputs in shapes:
        if name in EXPRESSIONS:
            yield sample_expression(name, rng, n_outputs, n_inputs, dtype)
        else:
            yield from sample_weights(name, rng, n_outputs, n_inputs, dtype)


@pytest.fixture(params=[*WEIGHTS, *EXPRESSIONS])
def name(request):
    return request.param


@pytest.mark.parametrize("tier", TIERS)
def test_verbs_agree_with_the_matrix(name, rng, tier):
    with backend(tier):
        for weight in members(name, rng):
            laws.check_verbs(weight)


def test_verbs_agree_with_the_matrix_tile_by_tile(name, rng, monkeypatch):
    monkeypatch.setattr(tiles, "TILE_BYTES", 600)  # two or three rows at a time
    with backend("numpy"):
        for weight in members(name, rng, shapes=[(6, 70), (7, 37)]):
            laws.check_verbs(weight)
            laws.check_lower(weight)


def test_verbs_agree_with_the_matrix_in_float64(name, rng):
    for weight in members(name, rng, np.float64):
        laws.check_verbs(weight)


def test_gradients(name, rng):
    for weight in members(name, rng, np.float64):
        if laws.is_linear(weight) and not any(isinstance(part, FakeQuantized) for part in parts(weight)):
            laws.check_gradients(weight)


def test_gradients_of_float32_are_float32(name, rng):
    for weight in members(name, rng, shapes=[(3, 33)]):
        laws.check_gradient_dtypes(weight)


def test_round_trip(name, rng):
    for weight in members(name, rng, shapes=[(1, 1), (5, 37)]):
        laws.check_round_trip(weight)


def test_a_file_gives_the_same_weight_back(name, rng, tmp_path):
    for number, weight in enumerate(members(name, rng, shapes=[(5, 37)])):
        path = tmp_path / f"{number}.safetensors"
        layout = LAYOUTS[number % len(LAYOUTS)]
        safetensors.write(path, {key: laid_out(array, layout) for key, array in under("up", weight.arrays()).items()})
        again = build(weight.spec(), below("up", safetensors.read(path)))  # memory-mapped, perhaps not aligned
        for key, array in weight.arrays().items():
            assert laws.bits(again.arrays()[key]) == laws.bits(array)
        laws.check_verbs(again)


def test_untrusted_specs_and_arrays_are_refused(name, rng):
    for weight in members(name, rng, shapes=[(3, 33)]):
        laws.check_untrusted(weight)


def test_memory_layouts_hold_the_same_numbers(name, rng):
    for weight in members(name, rng, shapes=[(1, 1), (17, 70), (40, 33)]):
        laws.check_layouts(weight)


def test_lower_computes_what_apply_does(name, rng):
    for weight in members(name, rng, shapes=[(1, 1), (6, 70)]):
        laws.check_lower(weight)


def test_other_activations_leave_the_matrix(name, rng):
    for weight in members(name, rng, shapes=[(1, 1), (17, 70)]):
        laws.check_activations(weight)


def test_rounded_activations_keep_their_bound(rng):
    rounded = [
        part
        for part in (*members("quantized", rng), *members("blocks", rng), *members("sparse", rng))
        if isinstance(part, Quantized | Blocks | Sparse) and part.activations != "float"
    ]
    assert {weight.activations for weight in rounded} == set(ACTIVATION_GROUPS)
    assert {weight.format.name for weight in rounded if isinstance(weight, Blocks)} == set(BLOCK_FORMATS)
    assert {weight.pattern for weight in rounded if isinstance(weight, Sparse)} == {"2:4", "16x32"}
    for weight in rounded:
        rounding.check_rounded_activations(weight)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fake_quantization_is_the_formula(rng, dtype):
    for weight in members("fake_quantized", rng, dtype):
        rounding.check_fake_quantized(weight)


def test_table_equals_folder_and_samples():
    in_folder = set()
    for module in pkgutil.iter_modules(minislm.weights.__path__):
        for name, member in inspect.getmembers(
            importlib.import_module(f"minislm.weights.{module.name}"), inspect.isclass
        ):
            if issubclass(member, Weight) and member is not Weight and member.__module__.endswith(f".{module.name}"):
                in_folder.add(f"{module.name}:{name}")
    assert in_folder - {"panels:Panels"} == set(WEIGHTS.values())  # a layout in memory, which no file names
    assert set(WEIGHTS) == set(STORAGES)


def test_names_of_types_are_those_of_the_table(rng):
    for name in WEIGHTS:
        for weight in members(name, rng, shapes=[(2, 3)]):
            if name not in ("sum", "product"):
                assert weight.spec()["type"] == name


def test_an_unknown_type_is_told_with_the_nearest():
    with pytest.raises(UnsupportedError, match="Did you mean 'dense'") as caught:
        build({"type": "dens"}, {})
    assert caught.value.code == "unknown_weight"
