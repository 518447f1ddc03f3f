"""Arrays as the bytes that a safetensors file is made of, a few MiB at a time: nothing is copied whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import numpy as np

from minislm.errors import ModelFileError, clipped
from minislm.files.safetensors_header import DTYPES

PIECE_BYTES = 4 * 2**20
"""Most bytes of a piece; what is copied to be written or compared is never more."""

NAMES = {dtype: name for name, dtype in DTYPES.items()}


def header_of(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> tuple[bytes, list[str]]:
    """Describe arrays as the beginning of a file does.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        By name.
    metadata : mapping of str to str
        Free text; may be empty.

    Returns
    -------
    header : bytes
        Its length and its JSON, filled with spaces to a multiple of 8 bytes.
    order : list of str
        The names in the order of their bytes: wide numbers first, so that each begins at a multiple of its item size.

    Raises
    ------
    ModelFileError
        Code ``unknown_dtype``: the format has no name for one.
    """
    order = sorted(arrays, key=lambda name: -arrays[name].itemsize)
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name in order:
        array = arrays[name]
        if array.dtype.name not in NAMES:
            raise ModelFileError(
                "unknown_dtype", f"tensor {clipped(name)} is {array.dtype}; safetensors has {', '.join(NAMES)}"
            )
        stop = position + array.nbytes
        entries[name] = {
            "dtype": NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [position, stop],
        }
        position = stop
    text = json.dumps(entries, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, order


def pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """Cut an array into the bytes of its rows, in order.

    Parameters
    ----------
    array : ndarray
        Of any memory layout and byte order.

    Yields
    ------
    ndarray of uint8
        The next bytes, little-endian, at most `PIECE_BYTES`; together they are the array in row order. Views where the
        array lies so already.

    Examples
    --------
    >>> import numpy as np
    >>> [piece.tolist() for piece in pieces(np.array([[1, 2], [3, 4]], ">u2").T)]
    [[1, 0, 3, 0, 2, 0, 4, 0]]
    """
    if array.nbytes <= PIECE_BYTES:
        plain = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        yield plain.reshape(-1).view(np.uint8)
        return
    step = PIECE_BYTES * len(array) // array.nbytes
    for first in range(0, len(array), max(1, step)):
        yield from pieces(array[first : first + step] if step else array[first])
