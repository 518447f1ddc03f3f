"""What is particular to masked panels: the way back, masks that lie, large sums, and which matrices lie in them."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from minislm.dispatch import backend
from minislm.ops.formats import format_named
from minislm.ops.masked_panels import pack_masked_panels, unpack_masked_panels
from minislm.ops.panels import pack_groups, round_activations
from minislm.testing.cases.nm import random_nm_mask
from minislm.weights.sparse import Sparse

kernels = pytest.importorskip("minislm.kernels")
SETS = kernels.instruction_set().available or pytest.skip("no kernels are compiled", allow_module_level=True)


@pytest.fixture(params=SETS)
def kernel(request):
    """Load compiled kernels, on every instruction set."""
    before = kernels.instruction_set().chosen
    kernels.instruction_set(request.param)
    rows = {row.op: row.function for row in kernels.KERNELS if row.technology == "cython"}

    def load(op):
        module, _, function = rows[op].partition(":")
        return getattr(importlib.import_module(f"minislm.kernels.{module}"), function)

    yield load
    kernels.instruction_set(before)


def layout_of(entries_OI, kept_OI, bits=None):
    return pack_masked_panels(lambda rows: (kept_OI[rows], entries_OI[rows]), *entries_OI.shape, entries_OI.dtype, bits)


@pytest.mark.parametrize("bits", [None, *range(2, 9)])
@pytest.mark.parametrize("shape", [(1, 1), (17, 70), (40, 33), (16, 64), (2, 0), (5, 300)])
def test_all_entries_come_back(rng, bits, shape):
    kept_OI = rng.random(shape) < 0.5
    entries_OI = rng.normal(size=shape) if bits is None else rng.integers(0, 2**bits, shape).astype(np.uint8)
    layout = layout_of(entries_OI, kept_OI, bits)
    for rows in (slice(0, shape[0]), slice(shape[0] // 3, shape[0] - shape[0] // 4)):
        kept, stored = unpack_masked_panels(layout, rows, shape[1], bits)
        np.testing.assert_array_equal(kept, kept_OI[rows])
        np.testing.assert_array_equal(stored, np.where(kept_OI, entries_OI, 0)[rows])


@pytest.mark.parametrize("n_rows", [1, 3, 20])
@pytest.mark.parametrize("name", ["float32", "int8", "int4"])
@pytest.mark.parametrize("lie", ["more", "fewer", "start", "falling", "far"])
def test_masks_and_starts_that_lie_are_refused(kernel, rng, name, n_rows, lie):
    x_NI = rng.normal(size=(n_rows, 70)).astype(np.float32)
    kept_OI = rng.random((40, 70)) < 0.5
    if name == "float32":
        masks, values, starts = layout_of(rng.normal(size=(40, 70)).astype(np.float32), kept_OI)
    else:
        format = format_named(name)
        masks, values, starts = layout_of(rng.integers(1, 16, (40, 70)).astype(np.uint8), kept_OI, format.bits)
    if lie in ("more", "fewer"):
        masks[1] = 0xFFFF if lie == "more" else 0
    else:
        starts[1] = {"start": starts[1] + 5, "falling": -1, "far": 2**62}[lie]
    op, args, options = "decoded_masked_panel_product", (x_NI, masks, values, starts), {"n_outputs": 40}
    if name != "float32":
        op, scales = "masked_panel_product", pack_groups(np.ones((40, 1), np.float32))
        args = round_activations(x_NI, group=0), masks, values, starts, scales
        options |= {"format": format, "group": 0, "n_inputs": 70}
    with pytest.raises(ValueError, match="masks of panel"):
        kernel(op)(*args, **options)


def test_values_without_room_behind_them_are_refused(kernel, rng):
    w_OI = rng.normal(size=(3, 5)).astype(np.float32)
    masks, values, starts = layout_of(w_OI, w_OI > 0)
    with pytest.raises(ValueError, match="starts"):
        kernel("decoded_masked_panel_product")(w_OI[:1], masks, values[:-1], starts, n_outputs=3)


@pytest.mark.parametrize("n_rows", [1, 2, 9])
@pytest.mark.parametrize("n_inputs", [1000, 65_536, 65_600, 131_071])
def test_sums_of_the_largest_codes_are_exact(kernel, n_rows, n_inputs):
    codes_OI, kept_OI = np.full((17, n_inputs), 255, np.uint8), np.ones((17, n_inputs), bool)
    kept_OI[:, ::2] = False
    x_NI = np.ones((n_rows, n_inputs), np.float32)
    found = kernel("masked_panel_product")(
        round_activations(x_NI, group=0),
        *layout_of(codes_OI, kept_OI, 8),
        pack_groups(np.ones((17, 1), np.float32)),
        format=format_named("int8"),
        group=0,
        n_inputs=n_inputs,
        n_outputs=17,
    )
    expected = np.float32(127 * 127 * (n_inputs // 2)) * np.float32(1 / 127)
    np.testing.assert_array_equal(found, np.full((n_rows, 17), expected))


@pytest.mark.parametrize(
    ("pattern", "values", "rounds"),
    [
        *(("2:4", "int8", True), ("2:4", "int4-32", True), ("4:8", "uint4-64", True), ("1:4", "int3", True)),
        *(("2:4", None, False), ("3:8", "int4-32", False), ("1:5", "int4-32", True), ("3:8", "int4", True)),
        *(("bitmap", "int8", False), ("bitmap", None, False), ("csr", "int8", False)),
    ],
)
def test_inputs_are_rounded_where_scales_stand_for_blocks_of_them(rng, pattern, values, rounds):
    w_OI, n, m = (
        rng.normal(size=(33, 200)).astype(np.float32),
        *map(int, pattern.split(":") if ":" in pattern else "01"),
    )
    mask_OI = random_nm_mask(rng, 33, 200, n, m) if n else rng.random(w_OI.shape) < 0.5
    weight = Sparse.from_dense(w_OI, mask_OI, pattern, values)
    assert weight.rounds is rounds
    assert weight.with_activations("int8-32").activations == ("int8-32" if rounds else "float")
    x_NI = rng.normal(size=(3, 200)).astype(np.float32)
    for way in ("int8-row", "int8-32"):
        found = weight.with_activations(way).apply(x_NI)
        with backend("numpy"):
            np.testing.assert_allclose(found, weight.with_activations(way).apply(x_NI), rtol=1e-4, atol=1e-4)
        error = np.abs(found - x_NI @ weight.dense().T).max()
        assert (1e-4 < error < 0.5) if rounds else error < 1e-4
