"""The report: bytes that add up, errors that are right, a table that a person can read; and `compress` around it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from minislm.compression import compress
from minislm.compression.distil import every_other_layer
from minislm.compression.low_rank import LowRank
from minislm.compression.prune import Prune
from minislm.compression.quantize import Quantize
from minislm.compression.recipe import Recipe, Step
from minislm.compression.report import CompressionReport, storage_of
from minislm.errors import NotFoundError, UsageError
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.testing import methods as laws
from minislm.weights.dense import Dense
from minislm.weights.fake_quantized import FakeQuantized
from minislm.weights.masked import Masked
from minislm.weights.quantized import Quantized

UP = "blocks.0.mlp.up.weight"


@pytest.fixture(scope="module")
def model():
    return Decoder.create(DecoderConfig.uniform(vocab_size=40, d_model=32, context=8, n_layers=2, n_heads=2), seed=1)


def tensor(report, path):
    return next(row for row in report.tensors if row.path == path)


def test_a_tensors_row_says_what_was_done_to_it(model):
    small, report = compress(model, Quantize("int4-32"))
    before, after = model.weights()[UP].dense(), small.weights()[UP].dense()
    row = tensor(report, UP)
    assert (row.shape, row.storage, row.bytes_before) == ((128, 32), "int4-32 x int8-32", 128 * 32 * 4)
    assert row.bytes_after == 128 * (16 + 2) == small.weights()[UP].nbytes
    assert row.bits_per_weight == 4.5
    assert row.relative_error == pytest.approx(np.linalg.norm(after - before) / np.linalg.norm(before), rel=1e-5)
    assert row.cosine == pytest.approx(
        np.vdot(after, before) / np.linalg.norm(after) / np.linalg.norm(before), rel=1e-6
    )
    untouched = tensor(report, "final_norm.weight")
    assert (untouched.storage, untouched.relative_error) == ("float32", 0.0)
    assert tensor(report, "final_norm.bias").relative_error is None  # zeros have no direction


def test_the_totals_are_sums_over_all_tensors(model):
    small, report = compress(model, Prune(pattern="2:4"))
    assert report.bytes_before == sum(array.nbytes for array in model.arrays().values())
    assert report.bytes_after == sum(row.bytes_after for row in report.tensors) == small.nbytes
    n_entries = sum(int(np.prod(row.shape)) for row in report.tensors)
    assert report.bits_per_weight == 8 * small.nbytes / n_entries
    assert report.parameters_after < 0.6 * report.parameters_before


def test_tensors_of_other_layers_are_not_compared(model):
    report = CompressionReport.of(model, every_other_layer(model))
    assert all(row.relative_error is None and row.cosine is None for row in report.tensors)


def test_text_and_json(model):
    _, report = compress(model, Recipe((Step(Quantize("int8"), UP), Step(LowRank(rank=2), "embedding.weight"))))
    lines = report.to_text().splitlines()
    assert lines[0].split()[:3] == ["tensor", "shape", "storage"]
    assert len(lines) == 2 + len(report.tensors)
    assert any("float32 @ float32" in line and "embedding.weight" in line for line in lines)
    assert lines[-1].startswith("total")
    values = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert values["tensors"][0]["path"] == "embedding.weight"
    assert values["bits_per_weight"] == report.bits_per_weight
    assert f"{report.bytes_after:,} after" in report.summary()


def test_storage_in_words(model):
    w_OI = model.weights()[UP].dense()
    sparse = Prune(pattern="2:4").run(model, where=UP)
    quantized = Quantized.nearest(w_OI, "int8", "int8-row")
    for weight, words in (
        (Dense(w_OI.astype(np.float16)), "float16"),
        (quantized, "int8 x int8-row"),
        (Quantize("int4-32").run(sparse, where=UP).weights()[UP], "2:4 of int4-32 x int8-32"),
        (Masked.from_dense(w_OI, w_OI > 0), "masked float32"),
        (FakeQuantized.nearest(w_OI, "int3"), "float32 rounded as int3"),
        (quantized + Dense(w_OI[:, :3]) @ Dense(w_OI[:3]), "int8 x int8-row + float32 @ float32"),
    ):
        assert storage_of(weight) == words


def test_a_recipe_may_be_a_value_a_file_or_a_mapping(model, tmp_path):
    recipe = Recipe((Step(Quantize("int4")),))
    recipe.save(tmp_path / "recipe.yaml")
    ways = (recipe, Quantize("int4"), tmp_path / "recipe.yaml", str(tmp_path / "recipe.yaml"), recipe.to_json())
    assert len({laws.digest(compress(model, way)[0]) for way in ways}) == 1
    with pytest.raises(NotFoundError):
        compress(model, tmp_path / "none.yaml")


def test_a_teacher_from_a_folder_needs_token_tables(model):
    with pytest.raises(UsageError) as caught:
        compress(model, Recipe((Step(Quantize("int4")),), teacher="some/folder"))
    assert caught.value.code == "teacher_without_tokens"


def test_parameters_are_numbers_whatever_their_storage(model):
    n_before = model.n_parameters
    n_outputs, n_inputs = model.weights()[UP].shape
    assert Quantize("int4").run(model, where=UP).n_parameters == n_before
    assert Prune(sparsity=0.75).run(model, where=UP).n_parameters == n_before - n_outputs * n_inputs * 3 // 4
    assert LowRank(rank=2).run(model, where=UP).n_parameters == n_before - n_outputs * n_inputs + 2 * (128 + 32)
