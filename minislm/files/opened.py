"""Opening a model file that nobody vouches for: a regular file, and no pickle."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from minislm.errors import ModelFileError, NotFoundError

PICKLE_BEGINNINGS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
POINTER = b"version https://git-lfs"  # what Git leaves of a large file until it is asked for it
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def opened(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    binary file
        At its beginning.

    Raises
    ------
    NotFoundError
        Code ``file_not_found``.
    ModelFileError
        Code ``not_regular_file``, or ``unsafe_format`` where the name is that of a pickle.
    """
    if path.suffix in PICKLE_SUFFIXES:
        raise pickled(path)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe must not make us wait
    except FileNotFoundError as error:
        raise NotFoundError("file_not_found", f"there is no file {path}") from error
    except OSError as error:
        raise ModelFileError("not_regular_file", f"{path} cannot be opened: {error.strerror}") from error
    file = os.fdopen(handle, "rb") if stat.S_ISREG(os.fstat(handle).st_mode) else None
    if file is None:
        os.close(handle)
        raise ModelFileError("not_regular_file", f"{path} is no regular file")
    return file


def check_no_pointer(path: Path) -> None:
    """Refuse a file that only says where Git Large File Storage keeps its content.

    Parameters
    ----------
    path : Path
        A regular file.

    Raises
    ------
    ModelFileError
        Code ``lfs_pointer``.
    """
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise ModelFileError(
                "lfs_pointer",
                f"{path} is a pointer of Git LFS, and what it points to was not fetched: run `git lfs pull` in its "
                "folder, or fetch the file from where it came from",
            )


def pickled(path: Path) -> ModelFileError:
    """Make the error for a file that is, or by its name must be, a pickle.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    ModelFileError
        To be raised; code ``unsafe_format``.
    """
    return ModelFileError(
        "unsafe_format",
        f"{path} is a pickle, which can run any code when it is opened, so minislm never opens one. Convert it to "
        "safetensors with the tool that wrote it, if you trust its source, and load that",
    )
