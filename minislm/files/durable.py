"""Durable writes: a file or folder stands under its name whole or not at all, whenever the process or the power dies.

Everything is first written in a workspace beside the target, brought to the disk (fsync), and then renamed. A workspace
is locked while its writer lives; one without a lock was left by a killed writer, and the next save removes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from minislm.errors import ModelFileError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a ``with`` block a place to write a file, which takes its name when the block ends without an error.

    Parameters
    ----------
    path : Path
        Where the file shall stand; one that stands there is replaced in one step.

    Yields
    ------
    Path
        Where to write it meanwhile.

    Raises
    ------
    ModelFileError
        Code ``disk_full`` or ``write_failed``; `path` is what it was, or whole and new.
    """
    path = path.resolve()
    with _workspace(path) as work:
        new = work / "new"
        new.mkdir()
        yield new / path.name
        _sync(new / path.name)
        os.replace(new / path.name, path)
        _sync(path.parent)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a ``with`` block an empty folder to fill, which takes its name when the block ends without an error.

    A folder cannot be replaced in one step: the old one moves into the workspace, then the new one takes its name. If
    the writer is killed between the two, `standing` finds the old one, and the next save puts it back.

    Parameters
    ----------
    path : Path
        Where the folder shall stand; one that stands there is replaced with all that it holds.

    Yields
    ------
    Path
        The folder to fill meanwhile.

    Raises
    ------
    ModelFileError
        Code ``disk_full`` or ``write_failed``; `path` is what it was, or whole and new.
    """
    path = path.resolve()
    with _workspace(path) as work:
        new = work / "new"
        new.mkdir()
        yield new
        for folder, _, names in os.walk(new, topdown=False):
            for name in names:
                _sync(Path(folder, name))
            _sync(Path(folder))
        if path.exists():
            os.replace(path, work / "old")
        os.replace(new, path)
        _sync(path.parent)


def standing(path: Path) -> Path:
    """Find the folder of that name, also when a save was killed in the middle of replacing it.

    Parameters
    ----------
    path : Path
        Where the folder should stand.

    Returns
    -------
    Path
        `path`, or the place where a killed save left the old folder.
    """
    if not path.exists():
        for work in _workspaces(path.resolve()):
            if (work / "old").exists():
                return work / "old"
    return path


@contextlib.contextmanager
def _workspace(path: Path) -> Iterator[Path]:
    """Make a locked folder beside `path`, remove it in the end, and name the errors of writing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in _workspaces(path):
            _sweep(left, path)
        work = path.parent / f".{path.name}.saving-{secrets.token_hex(4)}"
        work.mkdir()
        try:
            with _locked(work):
                yield work
        finally:
            _put_back(work, path)
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        code, advice = ("disk_full", "free space") if error.errno in FULL else ("write_failed", "mend that")
        raise ModelFileError(
            code,
            f"{path} could not be written: {error.strerror or error}; {advice} and write it again. Nothing "
            "half-written is left there",
        ) from error


def _workspaces(path: Path) -> list[Path]:
    """List the workspaces of `path`."""
    prefix = f".{path.name}.saving-"
    if not path.parent.is_dir():
        return []
    return sorted(entry for entry in path.parent.iterdir() if entry.name.startswith(prefix))


def _sweep(work: Path, path: Path) -> None:
    """Remove a workspace whose writer is dead, after putting back the folder that it may hold."""
    with contextlib.suppress(BlockingIOError, FileNotFoundError), _locked(work):
        _put_back(work, path)
        shutil.rmtree(work)


def _put_back(work: Path, path: Path) -> None:
    """Give the folder that was being replaced its name back, unless the new one has it."""
    if (work / "old").exists() and not path.exists():
        os.replace(work / "old", path)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which ends with the process at the latest."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _sync(path: Path) -> None:
    """Bring a file, or the list of names of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
