"""What is particular to matrices of blocks: the way back, columns that lie, and which shapes they take."""

from __future__ import annotations

import dataclasses
import importlib

import numpy as np
import pytest

from minislm.compression.prune import Prune
from minislm.compression.quantize import Quantize
from minislm.errors import UsageError
from minislm.models import model_class
from minislm.models.decoder import DecoderConfig
from minislm.ops.block_sparse import block_sparse_entries, pack_block_sparse, pack_block_sparse_panels
from minislm.ops.formats import format_named
from minislm.ops.panels import round_activations
from minislm.testing.cases.block_sparse import random_blocks_mask
from minislm.testing.programs import check_program_equals_forward
from minislm.weights.quantized import Quantized
from minislm.weights.sparse import Sparse

kernels = pytest.importorskip("minislm.kernels")
CONFIG = DecoderConfig.uniform(vocab_size=23, d_model=32, context=16, n_layers=2, n_heads=2, d_ff=96)


@pytest.mark.parametrize("shape", [(16, 1), (48, 70), (32, 64), (16, 300), (64, 0)])
def test_all_blocks_come_back(rng, shape):
    w_OI, mask_OI = rng.normal(size=shape), random_blocks_mask(rng, *shape)
    blocks, values = pack_block_sparse(w_OI, mask_OI)
    assert values.shape == (16 * int(np.bitwise_count(blocks).sum()), 32)
    kept, stored = block_sparse_entries(blocks, values, shape[1])
    np.testing.assert_array_equal(kept, mask_OI)
    np.testing.assert_array_equal(stored, np.where(mask_OI, w_OI, 0))


def test_a_block_with_one_entry_is_stored_whole(rng):
    w_OI = rng.normal(size=(32, 64))
    mask_OI = np.zeros(w_OI.shape, bool)
    mask_OI[20, 40] = True
    weight = Sparse.from_dense(w_OI, mask_OI, "16x32")
    assert weight.index["blocks"].tolist() == [[0], [2]]
    np.testing.assert_array_equal(weight.dense(), np.where(mask_OI, w_OI, 0))


def test_outputs_must_be_a_multiple_of_16(rng):
    w_OI = rng.normal(size=(17, 64))
    with pytest.raises(UsageError, match="multiple of 16") as caught:
        Sparse.from_dense(w_OI, w_OI > 0, "16x32")
    assert caught.value.code == "size_mismatch"


def test_blocks_beyond_the_last_input_are_refused(rng):
    w_OI = rng.normal(size=(16, 70))
    weight = Sparse.from_dense(w_OI, w_OI > 0, "16x32")
    with pytest.raises(UsageError, match="beyond the last") as caught:
        dataclasses.replace(weight, index={"blocks": np.array([[0b1110]], np.uint8)})
    assert caught.value.code == "bad_index"


@pytest.mark.parametrize("n_rows", [1, 2, 7, 13, 100])
@pytest.mark.parametrize("name", kernels.instruction_set().available)
def test_columns_and_starts_that_lie_are_refused(rng, name, n_rows):
    product = importlib.import_module("minislm.kernels.panels_cython").block_sparse_panel_product
    before = kernels.instruction_set().chosen
    w_OI, mask_OI = rng.normal(size=(48, 70)).astype(np.float32), random_blocks_mask(rng, 48, 70)
    blocks, values = pack_block_sparse(w_OI, mask_OI)
    codes, scales = Quantized.nearest(values, "int8").stored
    layout = pack_block_sparse_panels(blocks, codes, scales, format=format_named("int8"))
    rounded = round_activations(rng.normal(size=(n_rows, 70)).astype(np.float32), group=32)
    options = {"format": format_named("int8"), "n_inputs": 70, "n_outputs": 48}
    kernels.instruction_set(name)
    try:
        for column in (4, -1, 2**31 - 1, -(2**31)):
            columns = layout.columns.copy()
            columns[2] = column
            with pytest.raises(ValueError, match="panel 0"):
                product(rounded, *layout._replace(columns=columns), **options)
        for start in (2**62, -1, len(layout.columns) + 1):
            starts = layout.starts.copy()
            starts[1] = start
            with pytest.raises(ValueError, match="panel"):
                product(rounded, *layout._replace(starts=starts), **options)
    finally:
        kernels.instruction_set(before)


def test_pruning_keeps_the_blocks_of_the_largest_squares():
    model = model_class(CONFIG.type)[0].create(CONFIG, seed=1)
    small = Prune(sparsity=2 / 3, storage="16x32").run(model, where="blocks.*.mlp.*")
    for path, weight in small.weights().items():
        if "mlp" not in path:
            assert weight is model.weights()[path]
            continue
        w_OI = model.weights()[path].dense()
        squares = np.square(w_OI).reshape(w_OI.shape[0] // 16, 16, -1, 32).sum(axis=(1, 3))
        kept = np.unpackbits(weight.index["blocks"], axis=1, bitorder="little", count=squares.shape[1]).astype(bool)
        assert kept.sum() == round(kept.size / 3)
        assert squares[kept].min() >= squares[~kept].max()
        np.testing.assert_array_equal(weight.dense(), np.where(np.kron(kept, np.ones((16, 32))) > 0, w_OI, 0))
    bytes_small = Quantize("int8").run(small, where="blocks.*.mlp.*")
    assert {weight.activations for path, weight in bytes_small.weights().items() if "mlp" in path} == {"int8-row"}
    check_program_equals_forward(bytes_small, n_positions=5, bound=0.05)


def test_pruning_names_the_matrix_that_blocks_do_not_fit():
    model = model_class(CONFIG.type)[0].create(CONFIG, seed=1)
    with pytest.raises(UsageError, match="23 outputs"):
        Prune(sparsity=0.5, storage="16x32").run(model)
