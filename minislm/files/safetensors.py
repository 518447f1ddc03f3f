"""The safetensors format: mapped by our own strict reader, written by the safetensors library and read back.

References
----------
.. [1] Hugging Face, "safetensors", format description, https://github.com/huggingface/safetensors
.. [2] Trail of Bits (2023), "Safetensors library, security assessment".
"""

from __future__ import annotations

import math
import mmap
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from minislm.errors import ModelFileError, clipped
from minislm.files.durable import new_file
from minislm.files.opened import opened
from minislm.files.safetensors_header import Header, StoredTensor, checked_header, dtype_of


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


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and check what a file says of its contents.

    Parameters
    ----------
    path : path
        A regular file.

    Returns
    -------
    Header
        Tensors and metadata.

    Raises
    ------
    NotFoundError, ModelFileError
        As `read`.
    """
    path = Path(path)
    with opened(path) as file:
        return checked_header(file, path)


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
        Code ``disk_full``, ``write_failed``, or ``write_differs`` if what was written does not read back the same.
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
        Code ``write_differs``: what was written does not read back the same.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    contiguous = {name: _plain(array) for name, array in arrays.items()}
    path.touch()
    mode = path.stat().st_mode  # by the user's umask; the library's file would be readable by its owner only
    try:
        save_file(contiguous, path, dict(metadata) if metadata else None)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise ModelFileError("write_differs", f"{path.name} cannot be written as safetensors: {error}") from error
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    path.chmod(stat.S_IMODE(mode))
    _compare(path, contiguous, dict(metadata or {}))


def _plain(array: np.ndarray) -> np.ndarray:
    """Bring an array into row order and little-endian, for the library (0.8.0) scrambles the bytes of strided ones."""
    array = np.asarray(array)
    return array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)


def _compare(path: Path, arrays: Mapping[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Read a file back and hold it against what it was written from, bit by bit."""
    written = read(path)
    if set(written) != set(arrays) or read_header(path).metadata != metadata:
        raise ModelFileError("write_differs", f"{path.name} does not hold the names and metadata that were written")
    for name, array in arrays.items():
        back = written[name]
        if (back.dtype, back.shape) != (array.dtype, array.shape) or not np.array_equal(_bytes(back), _bytes(array)):
            raise ModelFileError(
                "write_differs",
                f"{path.name}: tensor {clipped(name)} was {array.dtype} {array.shape} and reads back as "
                f"{back.dtype} {back.shape}{'' if back.shape != array.shape else ' with other values'}",
            )


def _bytes(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(np.uint8)


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
