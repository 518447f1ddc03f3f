"""Blocks against the gguf package: every value to the bit, whatever the bytes."""

from __future__ import annotations

import numpy as np
import pytest

from minislm.errors import UnsupportedError
from minislm.ops import blocks as ours
from minislm.ops.blocks import BLOCK_FORMATS
from minislm.testing.cases.blocks import random_blocks
from minislm.weights.blocks import TWINS, Blocks

gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.oracle

# Bits of float16: zeros, subnormals, the ends of the normal numbers, infinities, quiet and signalling NaN.
SCALES = (0, 0x8000, 1, 0x83FF, 0x0400, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E01, 0xFE02, 0x7D00)


@pytest.fixture(params=BLOCK_FORMATS)
def format(request):
    return BLOCK_FORMATS[request.param]


def theirs(format, blocks):
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[format.name.upper()])


def check_equal(format, blocks):
    expected = theirs(format, blocks)
    found = format.decode(blocks, expected.shape[1])
    assert found.dtype == expected.dtype
    assert np.array_equal(found.view(np.uint32), expected.view(np.uint32))


def test_a_block_has_the_size_of_the_package(format):
    sizes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[format.name.upper()]]
    assert sizes == (format.inputs, format.n_bytes)


def test_any_bytes_at_all(format, rng):
    check_equal(format, rng.integers(0, 256, (200, 3 * format.n_bytes)).astype(np.uint8))


def test_every_byte_in_every_place(format):
    """One byte differs from zero: what a bit means is seen alone."""
    base = np.zeros(1, format.record)
    for name in ("scale", "least"):
        if name in format.record.names:
            base[name] = 1.0
    if format.name == "q6_k":
        base["scales"] = 1
    if format.name == "q4_k":
        base["scales"][:, :4], base["scales"][:, 8:] = 1, 0x11
    blocks = np.repeat(base.view(np.uint8)[None], 8 * format.n_bytes, axis=0)
    for row in range(len(blocks)):
        blocks[row, row // 8] ^= 1 << row % 8
    check_equal(format, blocks)


def test_every_scale(format, rng):
    pairs = np.array([(a, b) for a in SCALES for b in SCALES], np.uint16).view(np.float16)
    blocks = random_blocks(rng, format, len(pairs), format.inputs)
    blocks.view(format.record)["scale"][:, 0] = pairs[:, 0]
    if "least" in format.record.names:
        blocks.view(format.record)["least"][:, 0] = pairs[:, 1]
    check_equal(format, blocks)


@pytest.mark.parametrize("name", TWINS)
def test_their_quantizer_makes_what_ours_multiplies(name, rng):
    format = BLOCK_FORMATS[name]
    w = rng.normal(size=(7, 96)).astype(np.float32)
    w[2, 32:64] = 0.0
    blocks = gguf.quants.quantize(w, gguf.GGMLQuantizationType[name.upper()])
    weight = Blocks(format, 96, blocks)
    assert np.abs(weight.dense() - w).max() < 0.5
    twin = weight.quantized()
    assert twin.format.name == TWINS[name]
    assert twin.nbytes == weight.nbytes
    assert np.array_equal(twin.dense().view(np.uint32), weight.dense().view(np.uint32))


def test_a_planted_fault_is_caught(rng, monkeypatch):
    """The last four scales of q4_k lose their upper bits."""
    real = ours._six_bits
    monkeypatch.setattr(ours, "_six_bits", lambda packed: real(packed & np.uint8(63)))
    with pytest.raises(AssertionError):
        test_any_bytes_at_all(BLOCK_FORMATS["q4_k"], rng)


@pytest.mark.parametrize("name", BLOCK_FORMATS)
def test_what_has_no_exact_twin_is_refused(name, rng):
    format = BLOCK_FORMATS[name]
    blocks = random_blocks(rng, format, 2, 64)
    records = blocks.view(format.record)
    if name == "q8_0":
        records["codes"][1, 1, 31] = -128
    elif name == "q4_0":
        records["scale"][1, 1] = np.inf
    with pytest.raises(UnsupportedError) as caught:
        Blocks(format, 64, blocks).quantized()
    assert caught.value.code == "no_exact_twin"
