"""The header of a GGUF file: settings, and the law that its tensors must keep before any of them is mapped.

A file is the letters GGUF, a version, the numbers of tensors and of settings, the settings (name, type, value), what
each tensor is called, how large it is and where it begins, and the tensors' bytes, each at a multiple of an alignment.
Nothing of it is believed before it is checked by one law: a tensor's type is known, it has at most four axes, its rows
are whole blocks, and sorted by offset the tensors fill the rest of the file, each beginning at the first aligned byte
after the one before it. So there are no holes and no overlaps, and since every text and list must lie in the file, no
claim of a file can make the reader allocate more than a small multiple of the bytes that the file spends on it.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minislm.errors import ModelFileError, UnsupportedError, clipped
from minislm.files.opened import PICKLE_BEGINNINGS, check_no_pointer, opened, pickled
from minislm.files.safetensors_header import StoredTensor, dtype_of
from minislm.ops.blocks import BLOCK_FORMATS

MAGIC = b"GGUF"
VERSIONS = (2, 3)

FLOATS = {0: "F32", 1: "F16", 30: "BF16"}
BLOCKS = {2: "q4_0", 8: "q8_0", 12: "q4_k", 14: "q6_k"}
OTHERS = {
    3: "q4_1", 6: "q5_0", 7: "q5_1", 9: "q8_1", 10: "q2_k", 11: "q3_k", 13: "q5_k", 15: "q8_k", 16: "iq2_xxs",
    17: "iq2_xs", 18: "iq3_xxs", 19: "iq1_s", 20: "iq4_nl", 21: "iq3_s", 22: "iq2_s", 23: "iq4_xs", 24: "int8",
    25: "int16", 26: "int32", 27: "int64", 28: "float64", 29: "iq1_m", 34: "tq1_0", 35: "tq2_0", 39: "mxfp4",
}  # fmt: skip
"""Types that exist and are not read."""

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TRUTH, TEXT, LIST = 7, 8, 9
"""Types of settings: numbers as `struct` calls them, truth values, texts and lists."""

MAX_ENTRIES = 65_536  # tensors or settings
MAX_ITEMS = 2**20  # texts or lists in a list, which take more memory as Python objects; numbers stay an array
MAX_DEPTH = 4  # lists in lists
MAX_NAME = 65_535
MAX_TENSOR_NAME = 64
MAX_AXES = 4
ALIGNMENT = "general.alignment"
ALIGNMENTS = [2**power for power in range(3, 17)]
USUAL_ALIGNMENT = 32


@dataclass(frozen=True)
class Header:
    """What a file says of its contents, checked.

    Parameters
    ----------
    version : int
        2 or 3, which differ in nothing that a little-endian file shows.
    settings : dict
        Numbers, truth values, texts, arrays of numbers, lists of texts or of lists; by name.
    tensors : dict of str to StoredTensor
        In the order of their bytes; dtypes of `FLOATS` and `BLOCKS`, shapes as NumPy writes them.
    """

    version: int
    settings: dict[str, Any]
    tensors: dict[str, StoredTensor]


def mapped_header(path: Path) -> tuple[mmap.mmap, Header]:
    """Map a file and check its header against the law and the size of the file.

    Parameters
    ----------
    path : Path
        A regular file.

    Returns
    -------
    mapped : mmap
        The whole file, read-only.
    Header
        Settings, and tensors that lie in the file.

    Raises
    ------
    NotFoundError, ModelFileError, UnsupportedError
        As `gguf.read`.
    """
    with opened(path) as file:
        first = file.read(4)
        if first != MAGIC:
            if first.startswith(PICKLE_BEGINNINGS):
                raise pickled(path)
            check_no_pointer(path)
            raise ModelFileError("not_a_model_file", f"{path} is no GGUF file: it begins with {clipped(first)}")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return mapped, _Reader(mapped, path).header()


class _Reader:
    """Reads one header by the law, from its first byte to its last."""

    def __init__(self, mapped: mmap.mmap, path: Path) -> None:
        self.mapped, self.path = mapped, path
        self.position = len(MAGIC)

    def header(self) -> Header:
        version = self.version()
        n_tensors, n_settings = self.number("Q", "the header"), self.number("Q", "the header")
        for count, things in ((n_tensors, "tensors"), (n_settings, "settings")):
            if count > MAX_ENTRIES:
                raise self.error("too_many_entries", f"{count} {things} are more than {MAX_ENTRIES}")
        settings: dict[str, Any] = {}
        for _ in range(n_settings):
            name = self.name("a setting", MAX_NAME)
            if name in settings:
                raise self.error("duplicate_key", f"the setting {clipped(name)} stands in the header twice")
            kind = self.number("I", name)
            if name == ALIGNMENT and kind != 4:
                raise self.error("bad_alignment", f"{ALIGNMENT} must be a whole number of 32 bits")
            settings[name] = self.value(kind, name)
        self.check_parts(settings)
        alignment = settings.get(ALIGNMENT, USUAL_ALIGNMENT)
        if alignment not in ALIGNMENTS:
            raise self.error("bad_alignment", f"{ALIGNMENT} must be a power of two from 8 to 65536, not {alignment}")
        tensors: dict[str, StoredTensor] = {}
        for _ in range(n_tensors):
            name = self.name("a tensor", MAX_TENSOR_NAME)
            if name in tensors:
                raise self.error("duplicate_key", f"the tensor {clipped(name)} stands in the header twice")
            tensors[name] = self.tensor(name, alignment)
        return Header(version, settings, self.laid_out(tensors, alignment))

    def version(self) -> int:
        version: int = self.number("I", "the header")
        if version in VERSIONS:
            return version
        if int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS:
            raise self.error(
                "wrong_endianness", "the file is big-endian; convert it with the tool that wrote it, or write it again"
            )
        raise self.error("unsupported_version", f"minislm reads the versions 2 and 3 of the format, not {version}")

    def take(self, n_bytes: int, what: str) -> int:
        """Go on by some bytes that must be there; return where they begin."""
        start, left = self.position, len(self.mapped) - self.position
        if n_bytes > left:
            raise self.error("truncated", f"{clipped(what)} takes {n_bytes} bytes at {start}; only {left} follow")
        self.position += n_bytes
        return start

    def number(self, kind: str, what: str) -> Any:
        """Read a little-endian number."""
        return struct.unpack_from(f"<{kind}", self.mapped, self.take(struct.calcsize(f"<{kind}"), what))[0]

    def text(self, what: str, longest: int | None = None) -> str:
        n_bytes = self.number("Q", what)
        if longest is not None and n_bytes > longest:
            raise self.error("string_too_long", f"the name of {clipped(what)} has {n_bytes} bytes, not 1 to {longest}")
        start = self.take(n_bytes, what)
        try:
            return self.mapped[start : self.position].decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error("header_not_utf8", f"{clipped(what)} is no UTF-8 at byte {start + error.start}") from error

    def name(self, what: str, longest: int) -> str:
        name = self.text(what, longest)
        if not name or not name.isprintable():
            raise self.error("bad_field_type", f"{clipped(name)} cannot be the name of {what}")
        return name

    def value(self, kind: int, name: str, depth: int = 0) -> Any:
        """Read a setting, or an item of a list."""
        if kind == LIST:
            return self.items(name, depth)
        if kind == TEXT:
            return self.text(name)
        if kind not in NUMBERS:
            raise self.error("bad_field_type", f"{clipped(name)} has the type {kind}, which no setting has")
        if kind == TRUTH:
            return bool(self.truths(1, name)[0])
        return self.number(NUMBERS[kind], name)

    def items(self, name: str, depth: int) -> Any:
        """Read a list: of numbers as an array, of texts or lists as a list."""
        kind, count = self.number("I", name), self.number("Q", name)
        if kind == TRUTH:
            return self.truths(count, name)
        if kind in NUMBERS:
            dtype = np.dtype(f"<{NUMBERS[kind]}")
            start = self.take(count * dtype.itemsize, name)
            return np.frombuffer(self.mapped, dtype, count, start).copy() if count else np.empty(0, dtype)
        if kind not in (TEXT, LIST):
            raise self.error("bad_field_type", f"{clipped(name)} is a list of the type {kind}, which no setting has")
        if kind == LIST and depth == MAX_DEPTH:
            raise self.error("bad_field_type", f"{clipped(name)} holds lists in lists, deeper than {MAX_DEPTH}")
        if count > MAX_ITEMS:
            raise self.error("too_many_entries", f"{clipped(name)} has {count} items, more than {MAX_ITEMS}")
        return [self.value(kind, name, depth + 1) for _ in range(count)]

    def truths(self, count: int, name: str) -> np.ndarray:
        start = self.take(count, name)
        values = np.frombuffer(self.mapped[start : self.position], np.uint8)
        if (values > 1).any():
            raise self.error("bad_field_type", f"{clipped(name)} must hold truth values, 0 or 1")
        return values.astype(np.bool_)

    def check_parts(self, settings: dict[str, Any]) -> None:
        count = settings.get("split.count", 1)
        if type(count) is int and count > 1:
            raise UnsupportedError(
                "split_file",
                f"{self.path} is one of {count} files that hold a model together; join them first: "
                "llama-gguf-split --merge FIRST_FILE JOINED_FILE",
            )

    def tensor(self, name: str, alignment: int) -> StoredTensor:
        """Read one tensor's entry and check it by itself; offsets still count from the first byte of the data."""
        n_axes = self.number("I", name)
        if n_axes > MAX_AXES:
            raise self.error("bad_shape", f"has {n_axes} axes; at most {MAX_AXES} are possible", name)
        shape = tuple(self.number("Q", name) for _ in range(n_axes))[::-1]  # the file names the innermost first
        if math.prod(size for size in shape if size) >= 2**62:
            raise self.error("bad_shape", f"shape {clipped(shape)} is larger than any memory", name)
        kind, start = self.number("I", name), self.number("Q", name)
        if kind in OTHERS:
            known = ", ".join([*FLOATS.values(), *BLOCKS.values()]).lower()
            raise UnsupportedError(
                "unsupported_dtype",
                f"{self.path}: tensor {clipped(name)} is stored as {OTHERS[kind]}; minislm reads {known}",
            )
        if kind in FLOATS:
            dtype, per_block, block_bytes = FLOATS[kind], 1, dtype_of(FLOATS[kind]).itemsize
        elif kind in BLOCKS:
            dtype = BLOCKS[kind]
            per_block, block_bytes = BLOCK_FORMATS[dtype].inputs, BLOCK_FORMATS[dtype].n_bytes
        else:
            raise self.error("unknown_dtype", f"has the type {kind}, which does not exist", name)
        if kind in BLOCKS and n_axes != 2:
            raise UnsupportedError(
                "unsupported_shape", f"{self.path}: tensor {clipped(name)} is no matrix, but {dtype} of shape {shape}"
            )
        if kind in BLOCKS and shape[-1] % per_block:
            raise self.error("bad_shape", f"{dtype} needs rows of whole blocks of {per_block}, not {shape}", name)
        if start % alignment:
            raise self.error("bad_alignment", f"begins at {start}, which is no multiple of {alignment}", name)
        return StoredTensor(dtype, shape, start, start + math.prod(shape) // per_block * block_bytes)

    def laid_out(self, tensors: dict[str, StoredTensor], alignment: int) -> dict[str, StoredTensor]:
        """Check that the tensors fill the rest of the file; return them with offsets from its first byte."""
        first = -(-self.position // alignment) * alignment
        ordered = sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop))
        stop = 0
        for name, tensor in ordered:
            expected = -(-stop // alignment) * alignment
            if tensor.start < expected:
                raise self.error("overlap", f"begins at byte {tensor.start}, inside the tensor before it", name)
            if tensor.start > expected:
                raise self.error("hole", f"begins at byte {tensor.start}; after the one before it {expected}", name)
            stop = tensor.stop
        end = first + stop if stop else self.position
        if end > len(self.mapped):
            raise self.error(
                "truncated", f"{end - len(self.mapped)} bytes are missing at the end; fetch the file again"
            )
        if len(self.mapped) > -(-end // alignment) * alignment:
            raise self.error("trailing_bytes", f"{len(self.mapped) - end} bytes at the end belong to no tensor")
        return {
            name: StoredTensor(tensor.dtype, tensor.shape, first + tensor.start, first + tensor.stop)
            for name, tensor in ordered
        }

    def error(self, code: str, text: str, name: str | None = None) -> ModelFileError:
        of = "" if name is None else f"tensor {clipped(name)} "
        return ModelFileError(code, f"{self.path}: {of}{text}")
