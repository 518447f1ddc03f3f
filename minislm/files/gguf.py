"""The GGUF format of llama.cpp, mapped by our own strict reader.

References
----------
.. [1] G. Gerganov et al., "GGUF", description of the format, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minislm.files.gguf_header import FLOATS, mapped_header
from minislm.files.safetensors_header import StoredTensor, dtype_of
from minislm.ops.blocks import BLOCK_FORMATS
from minislm.weights.blocks import Blocks


@dataclass(frozen=True)
class GGUFFile:
    """What a GGUF file holds, in its own words.

    Parameters
    ----------
    settings : dict
        Numbers, truth values, texts, arrays of numbers, lists of texts or of lists; by name.
    tensors : dict of str to ndarray or Blocks
        By name, in the order of their bytes: floats as read-only arrays over the mapped file, with the axes as NumPy
        writes them (outputs before inputs); everything else as `Blocks` over it.
    """

    settings: dict[str, Any]
    tensors: dict[str, np.ndarray | Blocks]


def is_gguf(path: Path) -> bool:
    """Tell whether a path is, by its name, that of a GGUF file.

    Parameters
    ----------
    path : Path
        It need not exist.

    Returns
    -------
    bool
        False for a folder of such a name.
    """
    return path.suffix.lower() == ".gguf" and not path.is_dir()


def read(path: str | os.PathLike[str]) -> GGUFFile:
    """Map the tensors of a file, reading nothing but its header.

    Parameters
    ----------
    path : path
        A regular file. While the arrays live it must not be changed in place.

    Returns
    -------
    GGUFFile
        Settings and tensors; nothing is decoded.

    Raises
    ------
    NotFoundError
        Code ``file_not_found``.
    ModelFileError
        Codes ``not_a_model_file``, ``unsafe_format``, ``unsupported_version``, ``wrong_endianness``, ``truncated``,
        ``trailing_bytes``, ``header_not_utf8``, ``duplicate_key``, ``bad_field_type``, ``unknown_dtype``,
        ``bad_shape``, ``bad_alignment``, ``overlap``, ``hole``, ``too_many_entries``, ``string_too_long``,
        ``not_regular_file``.
    UnsupportedError
        Code ``unsupported_dtype`` or ``unsupported_shape``: a tensor is stored in a way that is not read;
        ``split_file``: the file is one of several that hold a model together.
    """
    mapped, header = mapped_header(Path(path))
    return GGUFFile(header.settings, {name: _stored(mapped, tensor) for name, tensor in header.tensors.items()})


def _stored(mapped: mmap.mmap, tensor: StoredTensor) -> np.ndarray | Blocks:
    """Make the array or the Blocks of a checked tensor over the mapped file."""
    n_bytes = tensor.stop - tensor.start
    data = np.frombuffer(mapped, np.uint8, n_bytes, tensor.start) if n_bytes else np.empty(0, np.uint8)
    data.flags.writeable = False
    if tensor.dtype in FLOATS.values():
        return data.view(dtype_of(tensor.dtype)).reshape(tensor.shape)
    format = BLOCK_FORMATS[tensor.dtype]
    n_outputs, n_inputs = tensor.shape
    return Blocks(format, n_inputs, data.reshape(n_outputs, format.row_bytes(n_inputs)))
