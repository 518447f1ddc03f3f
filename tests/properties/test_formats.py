"""Storage formats: packing is a bit stream, rounding is to the nearest, and nothing that is not finite gets in."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minislm.errors import DataError, UnsupportedError
from minislm.ops.bits import pack_bits, pack_mask, unpack_bits, unpack_mask
from minislm.ops.formats import BITS, FORMATS, GROUPS, NF4, format_named
from minislm.testing.strategies import matrices
from minislm.weights.quantized import Quantized

formats = st.sampled_from(sorted(FORMATS)).map(format_named)
even_formats = st.sampled_from(sorted(name for name in FORMATS if FORMATS[name].levels is None)).map(format_named)
levelled_formats = st.sampled_from(sorted(name for name in FORMATS if FORMATS[name].levels)).map(format_named)


@pytest.mark.parametrize("bits", range(1, 9))
def test_packed_rows_are_little_endian_bit_streams(bits, rng):
    for length in range(71):
        codes = rng.integers(0, 2**bits, (3, length)).astype(np.uint8)
        codes[0] = 2**bits - 1
        row_bytes = -(-length * bits // 8) + length % 3
        packed = pack_bits(codes, bits, row_bytes)
        for row, stored in zip(codes, packed, strict=True):
            stream = sum(int(code) << (bits * place) for place, code in enumerate(row))
            assert stored.tobytes() == stream.to_bytes(row_bytes, "little")
        assert np.array_equal(unpack_bits(packed, bits, length), codes)


def test_packed_masks_are_packed_codes_of_one_bit(rng):
    for length in range(71):
        mask = rng.random((3, length)) < 0.5
        packed = pack_mask(mask)
        assert np.array_equal(packed, pack_bits(mask.astype(np.uint8), 1, -(-length // 8)))
        assert np.array_equal(unpack_mask(packed, length), mask)


def test_every_width_and_group_has_both_forms():
    assert {(f.bits, f.group, f.symmetric) for f in FORMATS.values() if f.levels is None} == {
        (bits, group, symmetric) for bits in BITS for group in GROUPS for symmetric in (True, False)
    }
    assert {(f.bits, f.group) for f in FORMATS.values() if f.levels} == {
        (bits, group) for bits in (2, 4) for group in GROUPS
    }
    assert all(FORMATS[name].name == name for name in FORMATS)
    with pytest.raises(UnsupportedError, match="Did you mean 'int4-32'") as caught:
        format_named("int4_32")
    assert caught.value.code == "unknown_format"


def stored(w, format):
    scales, zeros = format.fit(w)
    codes = format.round(w, scales, zeros)
    return codes, scales, zeros, format.decode(codes, scales, zeros)


@given(matrices(), even_formats)
def test_every_weight_is_within_half_a_step(w, format):
    codes, scales, _, decoded = stored(w, format)
    assert scales.dtype == format.scale_dtype
    assert scales.shape == (len(w), format.n_groups(w.shape[1]))
    assert codes.min() >= format.code_range[0]
    assert codes.max() <= format.code_range[1]
    steps = format.spread(scales.astype(np.float64), w.shape[1])
    # Besides half a step: the float32 division before rounding, the float32 product after it.
    rounding = 2.0**-23 * np.abs(w.astype(np.float64)) + 2.0**-149
    assert (np.abs(decoded - w.astype(np.float64)) <= np.abs(steps) / 2 + rounding).all()


@given(matrices(), levelled_formats)
def test_every_weight_takes_the_nearest_level(w, format):
    codes, scales, zeros, decoded = stored(w, format)
    assert zeros is None
    assert codes.max() < len(format.levels)
    w, levels = w.astype(np.float64), np.array(format.levels)
    values = format.spread(scales.astype(np.float64), w.shape[1])[..., None] * levels
    assert np.array_equal(decoded, np.take_along_axis(np.broadcast_to(values, (*w.shape, levels.size)),
                                                      codes[..., None], axis=2)[..., 0].astype(np.float32))  # fmt: skip
    rounding = 2.0**-22 * np.abs(w) + 2.0**-149
    assert (np.abs(decoded - w) <= np.abs(values - w[..., None]).min(axis=2) + rounding).all()


def test_nf4_is_the_published_one_in_whole_127ths(rng):
    normal, last = NormalDist().inv_cdf, 0.9677083  # arXiv 2305.14314, equation 4 and appendix E, and its code
    above = [normal(share) for share in np.linspace(last, 0.5, 9)[:-1]]
    below = [-normal(share) for share in np.linspace(last, 0.5, 8)[:-1]]
    published = np.sort([*above, 0.0, *below]) / max(above)
    assert tuple(np.rint(127 * published)) == NF4
    w = rng.normal(size=(300, 64))
    codes, _, _, decoded = stored(w, format_named("nf4-64"))
    theirs = np.empty_like(w)
    for output, row in enumerate(w):
        largest = max(abs(weight) for weight in row)
        for i, weight in enumerate(row):
            far = [abs(weight - largest * level) for level in published]
            code = min(range(16), key=far.__getitem__)
            theirs[output, i] = largest * published[code]
            if sorted(far)[1] - sorted(far)[0] > 2.01 / 254 * largest:  # not half-way between two of theirs
                assert codes[output, i] == code
    assert np.linalg.norm(decoded - w) < 1.005 * np.linalg.norm(theirs - w)


def test_ternary_is_the_published_one(rng):
    w = rng.normal(size=(5, 70))
    _, _, _, decoded = stored(w, format_named("ternary"))
    for row, values in zip(w, decoded, strict=True):
        mean = sum(abs(weight) for weight in row) / len(row)  # arXiv 2402.17764, equations 1 to 3
        expected = [mean * max(-1, min(1, round(weight / mean))) for weight in row]
        np.testing.assert_allclose(values, expected, rtol=1e-6)


@given(matrices(), formats)
def test_zero_is_zero_and_only_zero_groups_have_no_scale(w, format):
    _, scales, _, decoded = stored(w, format)
    assert not decoded[w == 0.0].any()
    starts = np.arange(0, w.shape[1], format.group or w.shape[1])
    assert np.array_equal(scales == 0, np.maximum.reduceat(np.abs(w), starts, axis=1) == 0)


@given(matrices(), formats)
def test_scales_are_the_smallest_stored_ones_that_clip_nothing_or_the_mean(w, format):
    _, scales, _, _ = stored(w, format)
    starts = np.arange(0, w.shape[1], format.group or w.shape[1])
    high = np.maximum(np.maximum.reduceat(w, starts, axis=1).astype(np.float64), 0)
    low = np.minimum(np.minimum.reduceat(w, starts, axis=1).astype(np.float64), 0)
    if format.levels:
        sizes = np.diff(starts, append=w.shape[1])
        means = np.add.reduceat(np.abs(w, dtype=np.float64), starts, axis=1) / sizes
        needed = np.maximum(high, -low) / 127 if format.bits == 4 else means
    elif format.symmetric:
        most = 2 ** (format.bits - 1) - 1
        larger, smaller = np.maximum(high, -low), np.minimum(high, -low)
        needed = np.maximum(larger / (most if format.bits == 8 else most + 1), smaller / most)
        assert (scales[high <= -low] >= 0).all()
        scales = np.abs(scales)
    else:
        needed = (high - low) / (2**format.bits - 1)
    assert (scales >= needed).all()
    assert (np.nextafter(scales, scales.dtype.type(0))[scales > 0] < needed[scales > 0]).all()


@given(matrices(), formats)
def test_rounding_what_was_decoded_changes_nothing(w, format):
    codes, scales, zeros, decoded = stored(w, format)
    again = format.round(decoded, scales, zeros)
    assert format.decode(again, scales, zeros).tobytes() == decoded.tobytes()
    used = np.abs(np.broadcast_to(format.spread(scales, w.shape[1]), w.shape)) >= np.finfo(scales.dtype).tiny
    assert np.array_equal(again[used], codes[used])


@given(matrices(), formats)
def test_packing_rows_loses_nothing(w, format):
    codes, _, _, _ = stored(w, format)
    packed = format.pack(codes)
    assert packed.shape == (len(w), format.row_bytes(w.shape[1]))
    assert np.array_equal(format.unpack(packed, w.shape[1]), codes)


@given(matrices(max_outputs=2), formats, st.data())
def test_a_span_decodes_as_in_the_whole(w, format, data):
    codes, scales, zeros, decoded = stored(w, format)
    first = data.draw(st.integers(0, w.shape[1]))
    last = data.draw(st.integers(first, w.shape[1]))
    part = format.decode_span(format.pack(codes), scales, zeros, slice(first, last))
    assert np.array_equal(part, decoded[:, first:last])


@given(matrices(), formats, st.sampled_from([np.nan, np.inf, -np.inf]), st.data())
def test_what_is_not_finite_is_refused_with_its_place(w, format, strange, data):
    w = w.copy()
    place = data.draw(st.tuples(*(st.integers(0, size - 1) for size in w.shape)))
    w[place] = strange
    for refuse in (lambda: format.fit(w), lambda: format.round(w, np.ones((len(w), 1)), None)):
        with pytest.raises(DataError) as caught:
            refuse()
        assert caught.value.code == "non_finite_weight"
        assert str(list(place)) in str(caught.value)


@given(formats, st.sampled_from([-1.0, 1.0]))
def test_a_scale_too_large_to_store_is_refused(format, sign):
    largest = 65504.0 if format.group else 2.0**119
    steps = -format.step_range[0] if format.symmetric else 2**format.bits - 1
    if format.bits == 2 and format.levels:
        steps = 8 if format.group == 32 else 40  # all that the mean is of
    w = np.zeros((2, 40), np.float64)
    w[1, 37] = sign * largest * steps
    assert np.isfinite(stored(w, format)[3]).all()
    w[1, 37] *= 1.001
    with pytest.raises(DataError) as caught:
        format.fit(w)
    assert caught.value.code == "scale_overflow"


@given(matrices(dtype=np.float32), formats)
def test_nearest_is_fit_round_and_pack(w, format):
    codes, scales, zeros, decoded = stored(w, format)
    weight = Quantized.nearest(w, format.name)
    assert weight.codes.tobytes() == format.pack(codes).tobytes()
    assert weight.scales.tobytes() == scales.tobytes()
    assert (weight.zeros is None) == (zeros is None)
    assert np.array_equal(weight.dense(), decoded)


@pytest.mark.parametrize("name", ["int4-32", "int4-64", "int4-128"])
@pytest.mark.parametrize("n_inputs", [128, 256, 512, 1024])
def test_four_bits_take_at_most_sixteen_hundredths_of_float32(name, n_inputs):
    w = np.ones((64, n_inputs), np.float32)
    weight = Quantized.nearest(w, name)
    assert weight.nbytes <= 0.16 * w.nbytes
    assert weight.bits_per_weight == 8 * weight.nbytes / w.size
