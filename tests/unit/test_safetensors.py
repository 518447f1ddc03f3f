"""The safetensors reader against a catalogue of malformed files, the reference library, cuts and flipped bits."""

import json
import os
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors

from minislm.errors import ModelFileError, NotFoundError
from minislm.files import safetensors as ours
from minislm.files import safetensors_pieces as ours_pieces
from minislm.files.opened import PICKLE_SUFFIXES, opened
from minislm.files.safetensors_header import DTYPES, MAX_HEADER_BYTES, checked_header

F32 = '"dtype":"F32"'


def blob(header, data=b"", *, length=None):
    """Make a file of a header (text, bytes or JSON values) and the tensors' bytes."""
    if not isinstance(header, str | bytes):
        header = json.dumps(header)
    header = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(shape=(2,), offsets=(0, 8), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def one(data_bytes=8, **changes):
    """Make a file of one tensor ``a`` of two float32, with changes to its entry."""
    return blob({"a": {**entry(), **changes}}, bytes(data_bytes))


def text(fields, data_bytes=8):
    """Make a file of one tensor ``a`` whose entry is given as JSON text."""
    return blob(f'{{"a":{{{fields}}}}}', bytes(data_bytes))


def twice(name):
    """Make a file whose header names the one tensor ``a`` again, as `name`."""
    return blob(f'{{"a":{json.dumps(entry())},"{name}":{json.dumps(entry())}}}', bytes(8))


def several(*spans, data_bytes, names="abcdefghijkl"):
    """Make a file of uint8 tensors over the given spans of bytes."""
    entries = {n: entry((stop - start,), (start, stop), "U8") for n, (start, stop) in zip(names, spans, strict=False)}
    return blob(entries, bytes(data_bytes))


VALID = blob({"a": entry(), "b": entry((3,), (8, 14), "F16"), "c": entry((), (14, 15), "I8")}, bytes(range(15)))

BAD = {
    # the 8 bytes of length
    "empty file": (b"", "truncated"),
    "7 bytes": (bytes(7), "truncated"),
    "5 letters": (b"GGUF\n", "truncated"),
    "length 0": (bytes(8), "header_not_json"),
    "length 0, one byte more": (bytes(9), "header_not_json"),
    "length 1": (blob(b"{"), "header_not_json"),
    "length 2^63": (blob(b"{}", length=2**63), "header_too_large"),
    "length 2^64-1": (blob(b"{}", length=2**64 - 1), "header_too_large"),
    "length of the whole file": (blob(b"{}", length=10), "truncated"),
    "length one too large": (blob(b"{}", length=3), "truncated"),
    "length of the cap": (blob(b"{}", length=MAX_HEADER_BYTES), "truncated"),
    "length above the cap": (blob(b"{}", length=MAX_HEADER_BYTES + 1), "header_too_large"),
    "length 10^8": (blob(b"{}", length=10**8), "header_too_large"),
    # the header's text
    "byte order mark": (blob(b"\xef\xbb\xbf{}"), "header_not_json"),
    "UTF-16": (blob("{}".encode("utf-16")), "header_not_utf8"),
    "invalid UTF-8": (blob(b'{"\xff":1}'), "header_not_utf8"),
    "overlong UTF-8": (blob(b'{"\xc0\xaf":1}'), "header_not_utf8"),
    "lone surrogate in a name": (blob('{"\\ud800":{}}'), "header_not_utf8"),
    "lone surrogate in metadata": (blob('{"__metadata__":{"k":"\\udfff"}}'), "header_not_utf8"),
    "empty name": (blob({"": entry()}, bytes(8)), "bad_field_type"),
    "NUL in a name": (blob({"a\0b": entry()}, bytes(8)), "bad_field_type"),
    "terminal escape in a name": (blob({"\x1b[2J": entry()}, bytes(8)), "bad_field_type"),
    "name of 1 MB": (blob({"n" * 10**6: entry()}, bytes(8)), "string_too_long"),
    "array at the top": (blob("[]"), "header_not_json"),
    "number at the top": (blob("17"), "header_not_json"),
    "null at the top": (blob("null"), "header_not_json"),
    "string at the top": (blob('"{}"'), "header_not_json"),
    "NUL padding": (blob(b"{}\0\0"), "header_not_json"),
    "text after the object": (blob(b"{} {}"), "header_not_json"),
    "single quotes": (blob(b"{'a':1}"), "header_not_json"),
    "depth 100,000": (blob("[" * 100_000), "header_not_json"),
    "depth of objects 100,000": (blob('{"a":' * 100_000), "header_not_json"),
    "integer of 4,301 digits": (text(F32 + ',"shape":[%s],"data_offsets":[0,8]' % ("1" * 4301)), "header_not_json"),
    "NaN": (text(F32 + ',"shape":[NaN],"data_offsets":[0,8]'), "header_not_json"),
    "Infinity": (text(F32 + ',"shape":[2],"data_offsets":[0,Infinity]'), "header_not_json"),
    # names that stand twice
    "duplicate tensor": (twice("a"), "duplicate_key"),
    "duplicate tensor, escaped": (twice("\\u0061"), "duplicate_key"),
    "duplicate field": (text(F32 + ',"dtype":"U8","shape":[2],"data_offsets":[0,8]'), "duplicate_key"),
    "duplicate in metadata": (blob('{"__metadata__":{"k":"1","k":"2"}}'), "duplicate_key"),
    "duplicate metadata": (blob('{"__metadata__":{},"__metadata__":{}}'), "duplicate_key"),
    # metadata
    "metadata is an array": (blob({"__metadata__": []}), "bad_field_type"),
    "metadata is null": (blob({"__metadata__": None}), "bad_field_type"),
    "metadata holds a number": (blob({"__metadata__": {"k": 1}}), "bad_field_type"),
    "metadata holds an object": (blob({"__metadata__": {"k": {"l": "m"}}}), "bad_field_type"),
    # fields of an entry
    "entry is null": (blob({"a": None}), "bad_field_type"),
    "entry is an array": (blob({"a": ["F32", [2], [0, 8]]}, bytes(8)), "bad_field_type"),
    "no dtype": (text('"shape":[2],"data_offsets":[0,8]'), "bad_field_type"),
    "no shape": (text(F32 + ',"data_offsets":[0,8]'), "bad_field_type"),
    "no offsets": (text(F32 + ',"shape":[2]'), "bad_field_type"),
    "a field more": (one(strides=[1]), "bad_field_type"),
    "unknown dtype": (one(dtype="F31"), "unknown_dtype"),
    "lower-case dtype": (one(dtype="f32"), "unknown_dtype"),
    "dtype is a number": (one(dtype=32), "unknown_dtype"),
    "dtype is null": (one(dtype=None), "unknown_dtype"),
    "dtype is an array": (one(dtype=["F32"]), "unknown_dtype"),
    "4-bit dtype off a byte": (one(dtype="F4", shape=[3], data_offsets=[0, 2]), "unknown_dtype"),
    "shape null": (one(shape=None), "bad_shape"),
    "shape a number": (one(shape=2), "bad_shape"),
    "negative size": (one(shape=[-2]), "bad_shape"),
    "two negative sizes": (one(shape=[-1, -2]), "bad_shape"),
    "minus zero": (text(F32 + ',"shape":[-0],"data_offsets":[0,0]', 0), "bad_shape"),
    "boolean size": (one(shape=[True, 2]), "bad_shape"),
    "float size": (one(shape=[2.0]), "bad_shape"),
    "text size": (one(shape=["2"]), "bad_shape"),
    "size 2^63": (one(shape=[2**63]), "bad_shape"),
    "size 2^64, times 0": (one(shape=[2**64, 0], data_offsets=[0, 0], data_bytes=0), "bad_shape"),
    "100 axes": (one(shape=[1] * 99 + [2]), "bad_shape"),
    # products that wrap to something small in 64 bits
    "wrap to 0": (one(shape=[2**32, 2**32], data_offsets=[0, 0], data_bytes=0), "bad_shape"),
    "wrap to 4": (one(shape=[4194305, 4194305, 211106198978564]), "bad_shape"),
    "wrap in bytes": (one(shape=[2**62 + 2]), "bad_shape"),
    "wrap before a zero": (one(shape=[2**40, 2**40, 0], data_offsets=[0, 0], data_bytes=0), "bad_shape"),
    # offsets
    "offsets null": (one(data_offsets=None), "bad_field_type"),
    "one offset": (one(data_offsets=[0]), "bad_field_type"),
    "three offsets": (one(data_offsets=[0, 8, 8]), "bad_field_type"),
    "negative offset": (one(data_offsets=[-8, 0]), "bad_field_type"),
    "float offset": (one(data_offsets=[0, 8.0]), "bad_field_type"),
    "boolean offset": (one(data_offsets=[False, 8]), "bad_field_type"),
    "offset 2^64": (one(data_offsets=[2**64, 2**64 + 8]), "bad_field_type"),
    "reversed offsets": (one(data_offsets=[8, 0]), "size_mismatch"),
    "one element too many": (one(shape=[3]), "size_mismatch"),
    "one element too few": (one(shape=[1]), "size_mismatch"),
    "wider dtype": (one(dtype="F64"), "size_mismatch"),
    # how the tensors lie
    "beyond the end": (one(data_offsets=[0, 4 * 10**12], shape=[10**12]), "truncated"),
    "one byte missing": (one(7), "truncated"),
    "all data missing": (one(0), "truncated"),
    "one byte more": (one(9), "trailing_bytes"),
    "data without tensors": (blob("{}", bytes(1)), "trailing_bytes"),
    "hole at the start": (several((1, 9), data_bytes=9), "hole"),
    "hole in the middle": (several((0, 4), (5, 9), data_bytes=9), "hole"),
    "far away": (several((0, 4), (10**9, 10**9 + 4), data_bytes=8), "hole"),
    "overlap of 2": (several((0, 5), (4, 8), data_bytes=8), "overlap"),
    "same bytes twice": (several((0, 8), (0, 8), data_bytes=8), "overlap"),
    "overlap of 10": (several(*[(0, 8)] * 10, data_bytes=8), "overlap"),
    "nothing inside another": (several((0, 8), (4, 4), data_bytes=8), "overlap"),
    "100,000 entries": (blob({f"t{i}": entry((0,), (0, 0)) for i in range(100_000)}), "too_many_entries"),
    # files of other kinds
    "zip (torch)": (b"PK\x03\x04" + bytes(100), "unsafe_format"),
    "pickle, protocol 2": (b"\x80\x02}q\x00." + bytes(100), "unsafe_format"),
    "pickle, protocol 4": (b"\x80\x04\x95" + bytes(range(1, 100)), "unsafe_format"),
    "GGUF": (b"GGUF\x03\0\0\0" + bytes(100), "header_too_large"),
    "text": (b"The for statement is used to iterate", "header_too_large"),
}  # fmt: skip

GOOD = {
    "three tensors": VALID,
    "no tensors": blob("{}"),
    "metadata alone": blob({"__metadata__": {"format": "np", "k": "line\nline"}}),
    "0-d": one(4, shape=[], data_offsets=[0, 4]),
    "nothing in it": one(0, shape=[0], data_offsets=[0, 0]),
    "nothing, several axes": one(0, shape=[3, 0, 5], data_offsets=[0, 0]),
    "nothing beside something": several((0, 0), (0, 8), (8, 8), data_bytes=8),
    "something beside nothing": several((0, 8), (8, 8), (0, 0), data_bytes=8),
    "unsorted": several((4, 8), (0, 4), data_bytes=8),
    "spaces before": blob(b"  \n{}"),
    "spaces after": blob(b"{}    \n"),
    "non-ASCII name": blob({"größe": entry()}, bytes(8)),
    "unaligned": blob({"a": entry((1,), (0, 1), "U8"), "b": entry((2,), (1, 9))}, bytes(9)),
    "8 axes": one(shape=[1, 1, 1, 1, 1, 1, 1, 2]),
    "every value NaN": blob({"a": entry()}, b"\xff" * 8),
}


def outcome(path, data):
    """Read `data` with our reader: the code of its error, or None."""
    path.write_bytes(data)
    try:
        for array in ours.read(path).values():
            assert not array.flags.writeable
            assert array.flags.aligned
    except ModelFileError as error:
        return error.code
    return None


def header_of(path):
    with opened(path) as file:
        return checked_header(file, path)


def reference_accepts(path, data):
    """Whether the safetensors library reads `data`, from memory and from a file."""
    path.write_bytes(data)
    try:
        safetensors.deserialize(data)
        with safetensors.safe_open(path, framework="np"):
            return True
    except safetensors.SafetensorError:
        return False


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_named(tmp_path, name):
    data, code = BAD[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelFileError) as caught:
        ours.read(path)
    assert caught.value.code == code
    message = str(caught.value)
    assert str(path) in message
    assert len(message) < len(str(path)) + 400
    assert message.isprintable()


@pytest.mark.parametrize("name", GOOD)
def test_good_file_is_read_like_the_reference(tmp_path, name):
    path = tmp_path / "model.safetensors"
    path.write_bytes(GOOD[name])
    arrays = ours.read(path)
    reference = dict(safetensors.deserialize(GOOD[name]))
    assert set(arrays) == set(reference)
    for key, array in arrays.items():
        assert list(array.shape) == reference[key]["shape"]
        assert array.tobytes() == bytes(reference[key]["data"])
        assert array.flags.aligned
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_nothing_bad_is_accepted_here_and_rejected_there(tmp_path):
    for name, data in GOOD.items():
        assert reference_accepts(tmp_path / "m.safetensors", data), name
    strict = {name for name, (data, _) in BAD.items() if reference_accepts(tmp_path / "m.safetensors", data)}
    assert {"duplicate tensor", "NUL in a name"} <= strict  # where we are stricter, on purpose
    assert not {name for name in strict if BAD[name][1] in ("overlap", "hole", "truncated", "trailing_bytes")}


def test_cut_at_every_byte(tmp_path):
    for size in range(len(VALID)):
        assert outcome(tmp_path / "m.safetensors", VALID[:size]) == "truncated", size


def test_flipped_bits(tmp_path):
    ends = 8 + int.from_bytes(VALID[:8], "little")
    accepted = 0
    for bit in range(8 * ends):
        data = bytearray(VALID)
        data[bit // 8] ^= 1 << bit % 8
        code = outcome(tmp_path / "m.safetensors", bytes(data))
        assert code != "write_differs"
        if code is None:
            accepted += 1
            assert reference_accepts(tmp_path / "m.safetensors", bytes(data)), bit
    assert 0 < accepted < 8 * ends // 4  # a flipped letter of a name is a valid file; most flips are not


def test_mutated_headers_agree_with_the_reference(tmp_path):
    rng = np.random.default_rng(5)
    ends = 8 + int.from_bytes(VALID[:8], "little")
    pieces = [b"0", b"-0", b"1e0", b"[", b"]", b"{}", b",", b'"a"', b'"U8"', b"8", b" ", b"\\u0061", b"null", b"true"]
    accepted = 0
    for _ in range(1500):
        header = bytearray(VALID[8:ends])
        for _ in range(rng.integers(1, 3)):
            start = int(rng.integers(len(header)))
            header[start : start + int(rng.integers(3))] = pieces[rng.integers(len(pieces))]
        data = blob(bytes(header), VALID[ends:])
        if outcome(tmp_path / "m.safetensors", data) is None:
            accepted += 1
            assert reference_accepts(tmp_path / "m.safetensors", data), bytes(header)
    assert accepted > 10


def test_wrong_places(tmp_path):
    with pytest.raises(NotFoundError) as missing:
        ours.read(tmp_path / "no.safetensors")
    assert missing.value.code == "file_not_found"
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ModelFileError) as caught:
            ours.read(place)
        assert caught.value.code == "not_regular_file"
    for suffix in PICKLE_SUFFIXES:
        with pytest.raises(ModelFileError) as caught:
            ours.read(tmp_path / f"pytorch_model{suffix}")
        assert caught.value.code == "unsafe_format"


def hostile_arrays():
    rng = np.random.default_rng(1)
    base = rng.standard_normal((6, 8)).astype(np.float32)
    frozen = base.copy()
    frozen.flags.writeable = False
    arrays = {
        "rows": base,
        "columns": np.asfortranarray(base),
        "transposed": base.T,
        "strided": base[::2, 1::3],
        "backwards": base[::-1, ::-1],
        "broadcast": np.broadcast_to(base[0], (4, 8)),
        "read-only": frozen,
        "big-endian": base.astype(">f4"),
        "scalar": np.float32(3.5),
        "0-d": np.array(2.5, np.float64),
        "empty": np.empty((0, 3), np.float16),
        "special": np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324]),
        "bool": np.array([True, False, True]),
    }
    for dtype in set(DTYPES.values()) - {"bool"}:
        arrays[f"of {dtype}"] = rng.integers(0, 100, (3, 5)).astype(getattr(ml_dtypes, dtype, dtype))
    return arrays


def test_save_then_load_is_bit_exact(tmp_path):
    arrays = hostile_arrays()
    ours.write(tmp_path / "m.safetensors", arrays, {"note": "größe"})
    back = ours.read(tmp_path / "m.safetensors")
    assert set(back) == set(arrays)
    for name, array in arrays.items():
        expected = np.asarray(array)
        assert back[name].shape == expected.shape, name
        assert back[name].dtype == expected.dtype.newbyteorder("<"), name
        np.testing.assert_array_equal(back[name], expected, err_msg=name)
    assert header_of(tmp_path / "m.safetensors").metadata == {"note": "größe"}
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_new_files_obey_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        ours.write(tmp_path / "m.safetensors", {"a": np.zeros(3, np.float32)})
    finally:
        os.umask(before)
    assert (tmp_path / "m.safetensors").stat().st_mode & 0o777 == 0o644


def test_saving_over_the_mapped_file(tmp_path):
    path = tmp_path / "m.safetensors"
    ours.write(path, {"a": np.arange(100_000, dtype=np.float32)})
    mapped = ours.read(path)["a"]
    ours.write(path, {"a": mapped, "b": mapped[::-1]})
    np.testing.assert_array_equal(mapped, np.arange(100_000, dtype=np.float32))
    np.testing.assert_array_equal(ours.read(path)["b"], mapped[::-1])


@pytest.mark.parametrize(
    "arrays",
    [
        {"a": np.zeros(3, np.complex128)},
        {"a": np.zeros(2, "U3")},
        {"": np.zeros(3)},
        {"__metadata__": np.zeros(3)},
        {"a\nb": np.zeros(3)},
    ],
)
def test_what_cannot_be_written_is_named(tmp_path, arrays):
    with pytest.raises(ModelFileError):
        ours.write(tmp_path / "m.safetensors", arrays)
    assert os.listdir(tmp_path) == []


def scrambled(array):
    yield np.ravel(array, order="K").view(np.uint8)  # the bytes as they lie in memory


@pytest.mark.parametrize("fault", [scrambled, lambda array: [*ours_pieces.pieces(array)][:-1]])
def test_a_writer_that_scrambles_or_loses_bytes_is_caught(tmp_path, monkeypatch, fault):
    ours.write(tmp_path / "m.safetensors", {"a": np.zeros((2, 3), np.float32)})
    sound, calls = ours_pieces.pieces, iter([fault])
    monkeypatch.setattr(ours, "pieces", lambda array: next(calls, sound)(array))  # the first call writes
    with pytest.raises(ModelFileError) as caught:
        ours.write(tmp_path / "m.safetensors", {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T})
    assert caught.value.code == ("write_differs" if fault is scrambled else "truncated")
    assert ours.read(tmp_path / "m.safetensors")["a"].shape == (2, 3)


def named_arrays():
    """Return the hostile arrays, and names that JSON has to spell."""
    return {**hostile_arrays(), 'größe 𝄞 "\\': np.arange(5, dtype=np.int16), "none": np.empty(0, np.int8)}


@pytest.mark.parametrize("piece_bytes", [16, 40, 64, 2**22])
@pytest.mark.parametrize("metadata", [None, {"format": "np", "größe": "line\nline"}])
def test_what_is_written_the_reference_reads(tmp_path, monkeypatch, piece_bytes, metadata):
    monkeypatch.setattr(ours_pieces, "PIECE_BYTES", piece_bytes)
    arrays, path = named_arrays(), tmp_path / "m.safetensors"
    ours.write(path, arrays, metadata)
    with safetensors.safe_open(path, framework="np") as reference:
        assert reference.metadata() == metadata
    found = dict(safetensors.deserialize(path.read_bytes()))
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        little = np.asarray(array).astype(np.asarray(array).dtype.newbyteorder("<"))
        assert found[name]["shape"] == list(little.shape), name
        assert bytes(found[name]["data"]) == little.tobytes(), name


def test_headers_keep_numbers_aligned_and_arrays_in_order(tmp_path):
    arrays = {f"{name}{i}": np.ones(3, name) for i in range(3) for name in ("int8", "float64", "float16", "float32")}
    path = tmp_path / "m.safetensors"
    ours.write(path, arrays)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    assert data[8 : 8 + length].rstrip(b" ").endswith(b"}}")
    header = header_of(path)
    assert all(tensor.start % arrays[name].itemsize == 0 for name, tensor in header.tensors.items())
    assert [*header.tensors] == [*sorted(arrays, key=lambda name: -arrays[name].itemsize)]  # else as they came


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray, lambda array: array[::-1, ::2]])
def test_pieces_are_small_and_copy_nothing_that_lies_right(monkeypatch, rng, layout):
    monkeypatch.setattr(ours_pieces, "PIECE_BYTES", 100)
    array = layout(rng.normal(size=(12, 40)).astype(np.float32))
    cut = [*ours_pieces.pieces(array)]
    assert max(piece.nbytes for piece in cut) <= 100
    assert b"".join(piece.tobytes() for piece in cut) == array.tobytes()
    assert all(np.shares_memory(piece, array) for piece in cut) == array.flags.c_contiguous
