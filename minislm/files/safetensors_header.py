"""The header of a safetensors file, and the law that it must keep before anything else is read.

A file is 8 bytes (little-endian length of the header), a JSON header, and the tensors' bytes. Nothing of it is
believed before it is checked by one law: each tensor's dtype is known, its sizes are whole numbers, its bytes are as
many as dtype and shape make, and sorted by offset the tensors fill the rest of the file from its first byte to its
last, without hole or overlap. So no claim of a file can make the reader allocate more than the file is long.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from minislm.errors import ModelFileError, clipped
from minislm.files.opened import PICKLE_BEGINNINGS, check_no_pointer, pickled

DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
}  # fmt: skip
FROM_ML_DTYPES = ("bfloat16", "float8_e4m3fn", "float8_e5m2")

MAX_HEADER_BYTES = 16 * 2**20  # stricter than the format's 100 MB, because JSON takes many times its length in memory
MAX_TENSORS = 65_536
MAX_NAME = 1_000
MAX_AXES = 8


@dataclass(frozen=True)
class StoredTensor:
    """Where and how a file holds one tensor.

    Parameters
    ----------
    dtype : str
        As its format names it.
    shape : tuple of int
        Its sizes.
    start, stop : int
        Its bytes, counted from the beginning of the file.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Header:
    """What a file says of its contents, checked.

    Parameters
    ----------
    tensors : dict of str to StoredTensor
        In the order of their bytes.
    metadata : dict of str to str
        Free text.
    """

    tensors: dict[str, StoredTensor]
    metadata: dict[str, str]


def dtype_of(name: str) -> np.dtype[Any]:
    """Return the NumPy dtype of a name in the format.

    Parameters
    ----------
    name : str
        A key of `DTYPES`.

    Returns
    -------
    dtype
        Little-endian.
    """
    if DTYPES[name] in FROM_ML_DTYPES:
        import ml_dtypes

        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, DTYPES[name]))
        return dtype
    return np.dtype(DTYPES[name])


def checked_header(file: BinaryIO, path: Path) -> Header:
    """Read the header of an open file and check it against the law and the size of the file.

    Parameters
    ----------
    file : binary file
        At its beginning.
    path : Path
        Its name in errors.

    Returns
    -------
    Header
        Tensors that lie in the file, and the metadata.

    Raises
    ------
    ModelFileError
        As `safetensors.read`.
    """
    return _Reader(path).header(file)


class _Reader:
    """Reads one header by the law."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def header(self, file: BinaryIO) -> Header:
        file_bytes = os.fstat(file.fileno()).st_size
        entries = self.parsed(self.header_text(file, file_bytes))
        metadata = entries.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
            raise self.error("bad_field_type", "__metadata__ must map names to text")
        if len(entries) > MAX_TENSORS:
            raise self.error("too_many_entries", f"{len(entries)} tensors are more than {MAX_TENSORS}")
        data_start = file.tell()
        tensors = {name: self.tensor(name, entry) for name, entry in entries.items()}
        ordered = sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop))
        self.check_layout(ordered, file_bytes - data_start)
        return Header(
            {
                name: StoredTensor(tensor.dtype, tensor.shape, data_start + tensor.start, data_start + tensor.stop)
                for name, tensor in ordered
            },
            metadata,
        )

    def header_text(self, file: BinaryIO, file_bytes: int) -> str:
        """Read the length and the header's text."""
        first = file.read(8)
        if len(first) < 8:
            raise self.error("truncated", f"a file has at least 8 bytes; this one has {len(first)}")
        length = int.from_bytes(first, "little")
        if length > MAX_HEADER_BYTES:
            if first.startswith(PICKLE_BEGINNINGS):
                raise pickled(self.path)
            check_no_pointer(self.path)
            raise self.error(
                "header_too_large",
                f"the header claims {length} bytes, more than {MAX_HEADER_BYTES}; is this a safetensors file?",
            )
        if length > file_bytes - 8:
            raise self.error("truncated", f"the header claims {length} bytes; only {file_bytes - 8} follow")
        try:
            return file.read(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error("header_not_utf8", f"the header is no UTF-8 at byte {8 + error.start}") from error

    def parsed(self, text: str) -> dict[str, Any]:
        """Parse the header, more strictly than Python's parser does by itself."""
        try:
            entries = json.loads(
                text, object_pairs_hook=self.pairs, parse_constant=self.constant, parse_int=_whole_number
            )
        except (ValueError, RecursionError) as error:
            raise self.error("header_not_json", f"the header is no JSON: {clipped(str(error))}") from error
        if not isinstance(entries, dict):
            raise self.error("header_not_json", f"the header must be a JSON object, not {clipped(entries)}")
        return entries

    def pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Make one JSON object, refusing repeated keys and halves of characters."""
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise self.error("duplicate_key", f"{clipped(key)} stands in the header twice")
            for text in (key, value):
                if isinstance(text, str) and any("\ud800" <= letter <= "\udfff" for letter in text):
                    raise self.error("header_not_utf8", f"{clipped(text)} holds half a character (a lone surrogate)")
            found[key] = value
        return found

    def constant(self, name: str) -> Any:
        raise self.error("header_not_json", f"{name} is no JSON")

    def tensor(self, name: str, entry: Any) -> StoredTensor:
        """Check one entry by itself; offsets still count from the first byte after the header."""
        if len(name) > MAX_NAME:
            raise self.error("string_too_long", f"the tensor name {clipped(name)} is longer than {MAX_NAME}")
        if not name or not name.isprintable():
            raise self.error("bad_field_type", f"{clipped(name)} cannot be a tensor's name")
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            found = sorted(entry) if isinstance(entry, dict) else entry
            raise self.error("bad_field_type", f"needs dtype, shape and data_offsets, has {clipped(found)}", name)
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise self.error("unknown_dtype", f"dtype must be one of {', '.join(DTYPES)}, not {clipped(dtype)}", name)
        if not isinstance(shape, list) or len(shape) > MAX_AXES or not all(_is_size(size) for size in shape):
            raise self.error(
                "bad_shape", f"shape must be at most {MAX_AXES} whole numbers from 0, not {clipped(shape)}", name
            )
        n_bytes = math.prod(shape) * dtype_of(dtype).itemsize
        if math.prod(size for size in shape if size) * dtype_of(dtype).itemsize >= 2**63:
            raise self.error("bad_shape", f"shape {clipped(shape)} is larger than any memory", name)
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(offset) for offset in offsets):
            raise self.error(
                "bad_field_type", f"data_offsets must be two whole numbers from 0, not {clipped(offsets)}", name
            )
        start, stop = offsets
        if stop - start != n_bytes:
            raise self.error(
                "size_mismatch",
                f"{dtype} {tuple(shape)} takes {n_bytes} bytes; data_offsets {offsets} give {stop - start}",
                name,
            )
        return StoredTensor(dtype, tuple(shape), start, stop)

    def check_layout(self, ordered: list[tuple[str, StoredTensor]], data_bytes: int) -> None:
        """Check that the tensors fill the data from its first byte to its last."""
        position = 0
        for name, tensor in ordered:
            if tensor.start < position:
                raise self.error("overlap", f"begins at byte {tensor.start}, inside the tensor before it", name)
            if tensor.start > position:
                raise self.error(
                    "hole", f"begins at byte {tensor.start}; the tensor before it ends at {position}", name
                )
            position = tensor.stop
        if position > data_bytes:
            raise self.error("truncated", f"{position - data_bytes} bytes are missing at the end; fetch the file again")
        if position < data_bytes:
            raise self.error("trailing_bytes", f"{data_bytes - position} bytes at the end belong to no tensor")

    def error(self, code: str, text: str, name: str | None = None) -> ModelFileError:
        of = "" if name is None else f"tensor {clipped(name)} "
        return ModelFileError(code, f"{self.path}: {of}{text}")


def _is_size(value: object) -> bool:
    """Tell whether a JSON value is a size: a whole number, no truth value, from 0 to the largest index."""
    return type(value) is int and 0 <= value < 2**63


def _whole_number(digits: str) -> int | float:
    """Parse a JSON integer; minus zero, which the format does not allow as a size, stays a float."""
    return -0.0 if digits == "-0" else int(digits)
