"""The GGUF reader against a catalogue of malformed files, cuts, flipped bits and planted numbers."""

import struct
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from gguf_bytes import KINDS, SIZES, entry, n_bytes, raw, setting, text, value, written

from minislm.errors import MinislmError, ModelFileError, NotFoundError, UnsupportedError
from minislm.files import gguf
from minislm.files import gguf_header as header
from minislm.files.safetensors_header import dtype_of
from minislm.ops.blocks import BLOCK_FORMATS
from minislm.weights.blocks import Blocks

SETTINGS = [
    ("of.u8", "u8", 255),
    ("of.i8", "i8", -128),
    ("of.u16", "u16", 65535),
    ("of.i16", "i16", -2),
    ("of.u32", "u32", 2**32 - 1),
    ("of.i32", "i32", -3),
    ("of.f32", "f32", 0.5),
    ("of.bool", "bool", True),
    ("of.text", "text", "grün"),
    ("of.u64", "u64", 2**64 - 1),
    ("of.i64", "i64", -(2**63)),
    ("of.f64", "f64", 1e300),
    ("list.u8", "list", ("u8", [1, 2, 3])),
    ("list.f32", "list", ("f32", [0.5, -1.5])),
    ("list.i64", "list", ("i64", [])),
    ("list.bool", "list", ("bool", [True, False])),
    ("list.text", "list", ("text", ["a", "", "ö"])),
    ("list.list", "list", ("list", [("u16", [7]), ("text", ["x", "y"]), ("list", [("bool", [])])])),
]
TENSORS = [
    ("a", 0, (3, 2), np.arange(6, dtype=np.float32).tobytes()),
    ("b", 1, (5,), np.arange(5, dtype=np.float16).tobytes()),
    ("c", 30, (), np.array(1.5, ml_dtypes.bfloat16).tobytes()),
    ("d", 8, (64, 3), bytes(range(204))),
    ("e", 2, (32, 2), bytes(range(36))),
    ("f", 12, (256, 1), bytes(range(144))),
    ("g", 14, (256, 1), bytes(range(210))),
    ("h", 0, (0, 4), b""),
    ("i", 0, (1, 2, 1, 2), np.arange(4, dtype=np.float32).tobytes()),
]
VALID = written(SETTINGS, TENSORS)
SMALL = written(
    [("k", "u32", 1), ("l", "list", ("text", ["m"]))], [("a", 0, (2,), bytes(8)), ("b", 8, (32, 1), bytes(34))]
)
HUGE = (2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1, 10**7 + 1)


def one(kind=0, dims=(2,), offset=0, data=None, name="a", settings=()):
    """Make a file of one tensor."""
    return raw(settings, [entry(name, kind, dims, offset)], bytes(n_bytes(kind, dims)) if data is None else data)


def several(*starts, data=bytes(128)):
    """Make a file of float32 vectors of two numbers, beginning at the given bytes."""
    return raw((), [entry("abcdef"[i], 0, (2,), start) for i, start in enumerate(starts)], data)


def nested(depth):
    """Make a setting of lists in lists, as many as said around one of numbers."""
    return text("deep") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * depth + value("list", ("u8", [1]))


BAD = {
    "empty file": (b"", "not_a_model_file"),
    "three letters": (b"GGU", "not_a_model_file"),
    "another magic": (raw(magic=b"GGML"), "not_a_model_file"),
    "a pickle": (b"PK\x03\x04" + bytes(100), "unsafe_format"),
    "nothing but the magic": (b"GGUF", "truncated"),
    "version 0": (raw(version=0), "unsupported_version"),
    "version 1": (raw(version=1), "unsupported_version"),
    "version 4": (raw(version=4), "unsupported_version"),
    "version 2 of a big-endian file": (raw(version=2 << 24), "wrong_endianness"),
    "version 3 of a big-endian file": (raw(version=3 << 24), "wrong_endianness"),
    **{f"{n} tensors": (raw(n_tensors=n), "too_many_entries") for n in HUGE},
    **{f"{n} settings": (raw(n_settings=n), "too_many_entries") for n in HUGE},
    "a tensor too many": (raw(n_tensors=1), "truncated"),
    "a setting too many": (raw(n_settings=1), "truncated"),
    "a setting too few": (raw([setting("k", "u32", 1)], n_settings=0), "trailing_bytes"),
    # settings
    "type 13": (raw([text("k") + struct.pack("<I", 13) + bytes(8)]), "bad_field_type"),
    "type 2^31-1": (raw([text("k") + struct.pack("<I", 2**31 - 1) + bytes(8)]), "bad_field_type"),
    "list of type 13": (raw([text("k") + struct.pack("<IIQ", 9, 13, 0)]), "bad_field_type"),
    "truth value 2": (raw([text("k") + struct.pack("<IB", 7, 2)]), "bad_field_type"),
    "truth value 2 in a list": (raw([text("k") + struct.pack("<IIQBB", 9, 7, 2, 1, 2)]), "bad_field_type"),
    "lists five deep": (raw([nested(5)]), "bad_field_type"),
    "lists 100,000 deep": (raw([nested(10**5)]), "bad_field_type"),
    "empty name": (raw([setting("", "u8", 1)]), "bad_field_type"),
    "NUL in a name": (raw([setting("a\0b", "u8", 1)]), "bad_field_type"),
    "terminal escape in a name": (raw([setting("\x1b[2J", "u8", 1)]), "bad_field_type"),
    "name of 1 MB": (raw([setting("n" * 10**6, "u8", 1)]), "string_too_long"),
    "a setting twice": (raw([setting("k", "u8", 1)] * 2), "duplicate_key"),
    "name that is no UTF-8": (raw([setting(b"\xff", "u8", 1)]), "header_not_utf8"),
    "text that is no UTF-8": (raw([setting("k", "text", b"\xff")]), "header_not_utf8"),
    "text of half a character": (raw([setting("k", "text", b"\xed\xa0\x80")]), "header_not_utf8"),
    **{f"text of {n} bytes": (raw([text("k") + struct.pack("<IQ", 8, n)]), "truncated") for n in HUGE},
    **{f"list of {n} numbers": (raw([text("k") + struct.pack("<IIQ", 9, 12, n)]), "truncated") for n in HUGE},
    **{f"list of {n} truths": (raw([text("k") + struct.pack("<IIQ", 9, 7, n)]), "truncated") for n in HUGE},
    **{f"list of {n} texts": (raw([text("k") + struct.pack("<IIQ", 9, 8, n)]), "too_many_entries") for n in HUGE},
    **{f"list of {n} lists": (raw([text("k") + struct.pack("<IIQ", 9, 9, n)]), "too_many_entries") for n in HUGE},
    "list of 1000 texts": (raw([text("k") + struct.pack("<IIQ", 9, 8, 1000)]), "truncated"),
    **{
        f"alignment {n}": (one(settings=[setting("general.alignment", "u32", n)]), "bad_alignment")
        for n in (0, 1, 3, 4, 33, 2**17, 2**31)
    },
    "alignment in 64 bits": (one(settings=[setting("general.alignment", "u64", 32)]), "bad_alignment"),
    "alignment as text": (one(settings=[setting("general.alignment", "text", "32")]), "bad_alignment"),
    # tensors
    "five axes": (one(dims=(1,) * 5), "bad_shape"),
    "2^32-1 axes": (raw((), [text("a") + struct.pack("<I", 2**32 - 1)], bytes(64)), "bad_shape"),
    "type 99": (raw((), [entry("a", 99, (2,), 0)], bytes(8)), "unknown_dtype"),
    "type 4, which was removed": (raw((), [entry("a", 4, (32,), 0)], bytes(64)), "unknown_dtype"),
    "a tensor twice": (raw((), [entry("a", 0, (2,), 0)] * 2, bytes(64)), "duplicate_key"),
    "empty name of a tensor": (one(name=""), "bad_field_type"),
    "name of 65 bytes": (one(name="n" * 65), "string_too_long"),
    "size 2^64-1": (one(dims=(2**64 - 1,), data=bytes(8)), "bad_shape"),
    "sizes whose product wraps to 4": (one(dims=(2**32, 2**31, 2), data=bytes(8)), "bad_shape"),
    "bytes that wrap": (one(dims=(2**61 + 1,), data=bytes(8)), "truncated"),
    "huge sizes beside a zero": (one(dims=(2**63, 2**63, 0), data=b""), "bad_shape"),
    "a row that ends in a block": (one(kind=8, dims=(33, 1), data=bytes(64)), "bad_shape"),
    "a row that ends in a large block": (one(kind=12, dims=(128, 2), data=bytes(144)), "bad_shape"),
    "offset 8": (one(offset=8, data=bytes(64)), "bad_alignment"),
    "offset beyond the end": (one(offset=2**40), "hole"),
    "offset 2^64-32": (one(offset=2**64 - 32), "hole"),
    "overlap of two": (several(0, 0), "overlap"),
    "hole at the start": (several(32), "hole"),
    "hole in the middle": (several(0, 64), "hole"),
    "a byte missing": (one(data=bytes(7)), "truncated"),
    "everything missing": (one(data=b""), "truncated"),
    "a kilobyte too many": (one(data=bytes(1024)), "trailing_bytes"),
    "a byte more than the padding": (one(data=bytes(33)), "trailing_bytes"),
    "bytes after no tensors": (raw() + bytes(64), "trailing_bytes"),
}
UNSUPPORTED = {
    "one of three files": (raw([setting("split.count", "u16", 3)]), "split_file"),
    "q5_k": (raw((), [entry("a", 13, (256, 1), 0)], bytes(176)), "unsupported_dtype"),
    "int32": (raw((), [entry("a", 26, (2,), 0)], bytes(8)), "unsupported_dtype"),
    "a vector in blocks": (one(kind=8, dims=(32,)), "unsupported_shape"),
    "experts in blocks": (one(kind=8, dims=(32, 2, 2)), "unsupported_shape"),
}
GOOD = {
    "everything": VALID,
    "small": SMALL,
    "nothing": raw(),
    "version 2": raw(version=2),
    "one file of one": raw([setting("split.count", "u16", 1)]),
    "lists four deep": raw([nested(4)]),
    "names of 64 bytes": one(name="n" * 64),
    "end without padding": one(),
    "end with padding": one(data=bytes(32)),
    "tensors out of order": several(32, 0, data=bytes(64)),
    "alignment 8": written([], TENSORS, alignment=8),
    "alignment 4096": written([], TENSORS, alignment=4096),
    "no numbers at all": one(dims=(0,)),
}


def outcome(path, data):
    """Read a file; return the code of the error, or None. Any other exception is a failure."""
    path.write_bytes(data)
    try:
        gguf.read(path)
    except MinislmError as error:
        return error.code
    return None


@pytest.mark.parametrize("name", [*BAD, *UNSUPPORTED])
def test_bad_file_is_named(tmp_path, name):
    data, code = {**BAD, **UNSUPPORTED}[name]
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    with pytest.raises(ModelFileError if name in BAD else UnsupportedError) as caught:
        gguf.read(path)
    assert caught.value.code == code
    message = str(caught.value)
    assert str(path) in message
    assert len(message) < len(str(path)) + 400
    assert message.isprintable()


@pytest.mark.parametrize("name", GOOD)
def test_good_file_is_read(tmp_path, name):
    assert outcome(tmp_path / "m.gguf", GOOD[name]) is None


def test_settings_are_those_that_were_written(tmp_path):
    (tmp_path / "m.gguf").write_bytes(VALID)
    settings = gguf.read(tmp_path / "m.gguf").settings
    assert list(settings) == [name for name, _, _ in SETTINGS]
    for name, kind, content in SETTINGS[:12]:
        assert settings[name] == content
        assert type(settings[name]) is type(content), kind
    assert settings["list.u8"].tolist() == [1, 2, 3]
    assert settings["list.f32"].dtype == np.float32
    assert settings["list.f32"].tolist() == [0.5, -1.5]
    assert settings["list.i64"].tolist() == []
    assert settings["list.bool"].tolist() == [True, False]
    assert settings["list.text"] == ["a", "", "ö"]
    assert [np.asarray(each).tolist() for each in settings["list.list"][:2]] == [[7], ["x", "y"]]
    assert [each.tolist() for each in settings["list.list"][2]] == [[]]


def test_tensors_are_those_that_were_written(tmp_path):
    (tmp_path / "m.gguf").write_bytes(VALID)
    tensors = gguf.read(tmp_path / "m.gguf").tensors
    assert sorted(tensors) == [name for name, *_ in TENSORS]
    for name, kind, dims, data in TENSORS:
        tensor = tensors[name]
        assert tensor.shape == dims[::-1]
        if kind in header.FLOATS:
            assert tensor.dtype == dtype_of(header.FLOATS[kind])
            array = tensor
        else:
            assert isinstance(tensor, Blocks)
            assert tensor.format is BLOCK_FORMATS[header.BLOCKS[kind]]
            array = tensor.blocks
        assert array.tobytes() == data
        assert array.flags.aligned
        assert not array.flags.writeable


def test_tensors_are_mapped_and_not_read(tmp_path):
    rows = 40_000
    (tmp_path / "m.gguf").write_bytes(written([], [("a", 8, (256, rows), bytes(rows * 272))]))
    tracemalloc.start()
    weight = gguf.read(tmp_path / "m.gguf").tensors["a"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert weight.nbytes == rows * 272
    assert peak < 100_000
    assert not weight.blocks.flags.owndata


def test_cut_at_every_byte(tmp_path):
    # The padding after the last tensor need not be there.
    for size in range(len(VALID) - 16):
        assert outcome(tmp_path / "m.gguf", VALID[:size]) == ("not_a_model_file" if size < 4 else "truncated"), size


def test_flipped_bits(tmp_path):
    """A flipped bit is a named error, or another valid file: a name or a number changed."""
    codes = set()
    for bit in range(8 * len(SMALL)):
        data = bytearray(SMALL)
        data[bit // 8] ^= 1 << bit % 8
        codes.add(outcome(tmp_path / "m.gguf", bytes(data)))
    assert {None, "truncated", "overlap", "hole", "bad_alignment", "bad_shape", "unknown_dtype"} <= codes


def test_planted_numbers_allocate_nothing(tmp_path):
    """Every place takes every hostile number: the answer is an error or a file, soon, and in little memory."""
    path = tmp_path / "m.gguf"
    for numbers, letter in ((HUGE, "Q"), ((2**31, 2**32 - 1, 65_536, 2**20), "I")):
        for start in range(4, len(SMALL) - 8):
            for number in numbers:
                data = bytearray(SMALL)
                struct.pack_into(f"<{letter}", data, start, number)
                tracemalloc.start()
                outcome(path, bytes(data))
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                assert peak < 200_000, (start, number)


def test_random_mutations_are_named(tmp_path, rng):
    """Whatever bytes change, the answer is an error of ours or another file; every check is reached."""
    codes = set()
    for _ in range(1000):
        data = bytearray(VALID)
        for _ in range(rng.integers(1, 4)):
            start = int(rng.integers(4, 900))
            data[start : start + int(rng.integers(4))] = (
                rng.integers(0, 256, rng.integers(4)).astype(np.uint8).tobytes()
            )
        codes.add(outcome(tmp_path / "m.gguf", bytes(data)))
    assert {None, "truncated", "header_not_utf8", "too_many_entries", "bad_shape", "unknown_dtype"} <= codes


def test_every_kind_of_setting_cut_at_every_byte(tmp_path):
    for name, kind, content in SETTINGS:
        whole = raw([setting(name, kind, content)])
        for size in range(len(whole) - len(value(kind, content)), len(whole)):
            assert outcome(tmp_path / "m.gguf", whole[:size]) == "truncated", (kind, size)


def test_wrong_places(tmp_path):
    with pytest.raises(NotFoundError) as missing:
        gguf.read(tmp_path / "no.gguf")
    assert missing.value.code == "file_not_found"
    for place in (tmp_path, "/dev/zero"):
        with pytest.raises(ModelFileError) as caught:
            gguf.read(place)
        assert caught.value.code == "not_regular_file"


def test_tables_agree_with_the_tests():
    assert set(KINDS.values()) == {*header.NUMBERS, header.TEXT, header.LIST}
    assert set(SIZES) == {*header.FLOATS, *header.BLOCKS}


def test_a_planted_fault_is_caught(tmp_path, monkeypatch):
    """A reader that believes where tensors lie."""
    monkeypatch.setattr(header._Reader, "laid_out", lambda self, tensors, alignment: tensors)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test_bad_file_is_named(tmp_path, "overlap of two")
