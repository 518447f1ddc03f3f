"""The safetensors format: mapped by our own strict reader, written tensor by tensor and read back.

References
----------
.. [1] Hugging Face, "safetensors", format description, https://github.com/huggingface/safetensors
.. [2] Trail of Bits (2023), "Safetensors library, security assessment".
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from minislm.errors import ModelFileError, clipped
from minislm.files.durable import new_file
from minislm.files.opened import opened
from minislm.files.safetensors_header import StoredTensor, checked_header, dtype_of
from minislm.files.safetensors_pieces import header_of, pieces
from minislm.weights.mapped import release


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Map the tensors of a file, reading nothing but its header.

    Parameters
    ----------
    path : path
        A regular file. While the arrays live it must not be changed in place; replacing it (as `write` does) is safe.

    Returns
    -------
    dict of str to ndarray
        Read-only arrays over the mapped file, in the order of their bytes. A tensor that its writer put at an address
        that is no multiple of its item size is copied, because compiled kernels need aligned numbers.

    Raises
    ------
    NotFoundError
        Code ``file_not_found``.
    ModelFileError
        Codes ``unsafe_format``, ``truncated``, ``trailing_bytes``, ``header_too_large``, ``header_not_utf8``,
        ``header_not_json``, ``duplicate_key``, ``bad_field_type``, ``unknown_dtype``, ``bad_shape``, ``size_mismatch``,
        ``overlap``, ``hole``, ``too_many_entries``, ``string_too_long``, ``not_regular_file``.
    """
    path = Path(path)
    with opened(path) as file:
        header = checked_header(file, path)
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return {name: _array(mapped, tensor) for name, tensor in header.tensors.items()}


def write(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a file, so that `path` names the old one or the whole new one at every moment.

    Parameters
    ----------
    path : path
        Where; a file that stands there is replaced, even one that `arrays` are mapped from.
    arrays : mapping of str to ndarray
        Any memory layout; dtypes of `DTYPES`.
    metadata : mapping of str to str, optional
        Free text for the header.

    Raises
    ------
    ModelFileError
        Code ``disk_full``, ``write_failed``, ``unknown_dtype``, or ``write_differs`` or a code of `read` if what was
        written does not read back the same.
    """
    with new_file(Path(path)) as temporary:
        write_in_place(temporary, arrays, metadata)


def write_in_place(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write a file that nobody else reads yet, such as one inside `new_folder`, and compare it with `arrays`.

    Parameters
    ----------
    path : Path
        Where.
    arrays : mapping of str to ndarray
        Any memory layout; dtypes of `DTYPES`.
    metadata : mapping of str to str, optional
        Free text for the header.

    Raises
    ------
    OSError
        The disk is full, or the like.
    ModelFileError
        Code ``unknown_dtype``; ``write_differs``, or a code of `read`: what was written does not read back the same.
    """
    stored = {name: np.asarray(array) for name, array in arrays.items()}
    header, order = header_of(stored, metadata or {})
    with path.open("wb") as file:
        file.write(header)
        for name in order:
            for piece in pieces(stored[name]):
                file.write(piece.data)
            release(stored[name])
    _compare(path, stored, dict(metadata or {}))


def _compare(path: Path, arrays: Mapping[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Read a file back and hold it against what it was written from, bit by bit."""
    with opened(path) as file:
        header = checked_header(file, path)
        if set(header.tensors) != set(arrays) or header.metadata != metadata:
            raise ModelFileError("write_differs", f"{path.name} does not hold the names and metadata that were written")
        for name, tensor in header.tensors.items():
            array = arrays[name]
            file.seek(tensor.start)
            same = (dtype_of(tensor.dtype), tensor.shape) == (array.dtype.newbyteorder("<"), array.shape)
            if not same or not all(_reads(file, piece) for piece in pieces(array)):
                raise ModelFileError(
                    "write_differs",
                    f"{path.name}: tensor {clipped(name)} was {array.dtype} {array.shape} and reads back as "
                    f"{tensor.dtype} {tensor.shape}{' with other values' if same else ''}",
                )
            release(array)


def _reads(file: BinaryIO, piece: np.ndarray) -> bool:
    """Tell whether a file goes on with these bytes."""
    back = np.frombuffer(file.read(piece.nbytes), np.uint8)
    return back.shape == piece.shape and bool((back == piece).all())


def _array(mapped: mmap.mmap, tensor: StoredTensor) -> np.ndarray:
    """Make the array of a checked tensor over the mapped file."""
    dtype = dtype_of(tensor.dtype)
    count = math.prod(tensor.shape)
    if count == 0:
        array = np.empty(tensor.shape, dtype)
    else:
        array = np.frombuffer(mapped, dtype, count, tensor.start).reshape(tensor.shape)
        if not array.flags.aligned:
            array = array.copy()
    array.flags.writeable = False
    return array
