"""Checkpoints that survive a kill, a power cut or a full disk at any instant.

A checkpoint is a folder ``step-00000120`` of arrays (safetensors), ``state.json``, and ``MANIFEST.json`` with the size
and SHA-256 of each. `files.durable` gives the folder its name when all of it is on the disk, so a folder with this name
is whole, and the manifest tells if it did not stay so. Older ones go only after the new one has been read back.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minislm.errors import ModelFileError, TrainingError
from minislm.files import safetensors
from minislm.files.durable import new_folder
from minislm.weights.base import Arrays

FORMAT = "minislm checkpoint 1"
MANIFEST, STATE, LOCK = "MANIFEST.json", "state.json", "lock"
_NAME = re.compile(r"step-(\d{8,})")
_UNFINISHED = ".step-*.saving-*"  # what a killed save, or a killed removal, leaves


@dataclass(frozen=True)
class Checkpoint:
    """What `load` found.

    Parameters
    ----------
    path : Path
        Its folder.
    step : int
        The optimizer steps done.
    state : dict
        What `save` was given, as JSON values.
    files : dict of str to dict of str to ndarray
        Arrays by file name (without ``.safetensors``) and array name, mapped and read-only.
    """

    path: Path
    step: int
    state: dict[str, Any]
    files: dict[str, Arrays]


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory for one trainer; the system frees it when the process ends, however it ends.

    Parameters
    ----------
    directory : Path
        Made if it is not there. What an interrupted save left in it is removed.

    Yields
    ------
    None
        While the lock is held.

    Raises
    ------
    TrainingError
        Code ``checkpoint_dir_locked``: another trainer holds it; ``checkpoint_write_failed``: it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        with writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(directory / LOCK, "a+", encoding="ascii"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise TrainingError(
                    "checkpoint_dir_locked",
                    f"{directory} is in use by process {file.read().strip() or '(unknown)'}, which is training in it. "
                    "Wait for it or stop it, or choose another directory",
                ) from error
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            for left in directory.glob(_UNFINISHED):
                shutil.rmtree(left)
        yield


@contextlib.contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Give what goes wrong with the disk in the ``with`` block the name it has for whoever trains.

    Parameters
    ----------
    directory : Path
        To be named in the message.

    Yields
    ------
    None
        Once.

    Raises
    ------
    TrainingError
        Code ``checkpoint_write_failed``, with the system's reason and number.
    """
    try:
        yield
    except (OSError, ModelFileError) as error:
        system = error if isinstance(error, OSError) else error.__cause__
        reason = f"{system.strerror} (errno {system.errno})" if isinstance(system, OSError) else str(error)
        begun = directory.is_dir() and any(map(_NAME.fullmatch, os.listdir(directory)))
        kept = ", to go on from the newest checkpoint; those already there are untouched" if begun else ""
        raise TrainingError(
            "checkpoint_write_failed", f"cannot write in {directory}: {reason}; mend that and run again{kept}"
        ) from error


def save(directory: Path, step: int, files: Mapping[str, Arrays], state: Mapping[str, Any], *, keep: int) -> Path:
    """Write a checkpoint, read it back, and only then remove those that are no longer wanted.

    Parameters
    ----------
    directory : Path
        Held by `locked`.
    step : int
        The optimizer steps done.
    files : mapping of str to dict of str to ndarray
        Arrays by file name (without ``.safetensors``) and array name.
    state : mapping
        JSON values.
    keep : int
        How many checkpoints stay, this one among them.

    Returns
    -------
    Path
        The checkpoint's folder.

    Raises
    ------
    TrainingError
        Code ``checkpoint_write_failed``: disk full or another error of the system, or what was written reads back
        differently. The checkpoints that were there are untouched.
    """
    final = directory / f"step-{step:08d}"
    with writing(directory):
        with new_folder(final) as folder:  # one that stands there is damaged, or the run would have gone on from it
            _fill(folder, files, {**state, "step": step})
        try:
            _verify(final)
        except _DamagedError as damage:
            raise TrainingError(
                "checkpoint_write_failed", f"{final} was written, but reads back wrong: {damage}"
            ) from None
        older = sorted((number, path) for number, path in _steps(directory).items() if number < step)
        for _, path in older[: max(0, len(older) - (keep - 1))]:
            _remove(path)
    return final


def load(directory: Path) -> tuple[Checkpoint | None, list[str]]:
    """Find the newest checkpoint that is whole.

    Parameters
    ----------
    directory : Path
        Where `save` writes.

    Returns
    -------
    checkpoint : Checkpoint or None
        None where there is none at all.
    skipped : list of str
        A line for every newer one that was passed over, with the reason; each starts with ``checkpoint_skipped``.

    Raises
    ------
    TrainingError
        Code ``no_whole_checkpoint``: there are some, and all are damaged.
    """
    skipped: list[str] = []
    for step, path in sorted(_steps(directory).items(), reverse=True):
        try:
            return _read(path, step), skipped
        except _DamagedError as damage:
            skipped.append(f"checkpoint_skipped: {path.name}: {damage}")
    if skipped:
        raise TrainingError(
            "no_whole_checkpoint",
            f"every checkpoint in {directory} is damaged ({'; '.join(skipped)}). "
            "Restore one from a copy, or remove them to train from the beginning",
        )
    return None, skipped


def _verify(path: Path) -> list[str]:
    """Check every byte against the manifest and return the names of the files; _DamagedError says what differs."""
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT:
            raise _DamagedError(
                f"{MANIFEST} is damaged or of another version: {manifest['format']!r} is not {FORMAT!r}"
            )
        for name, expected in manifest["files"].items():
            found = _summary(path / Path(name).name)
            if found != expected:
                raise _DamagedError(f"{name} has {found}, its manifest says {expected}")
        return list(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _DamagedError(f"{type(error).__name__}: {error}") from error


class _DamagedError(Exception):
    """A checkpoint that is not what was saved."""


def _read(path: Path, step: int) -> Checkpoint:
    names = _verify(path)
    state = json.loads((path / STATE).read_bytes())
    if state["step"] != step:
        raise _DamagedError(f"it holds step {state['step']}")
    files = {Path(name).stem: safetensors.read(path / name) for name in names if name != STATE}
    return Checkpoint(path, step, state, files)


def _fill(folder: Path, files: Mapping[str, Arrays], state: Mapping[str, Any]) -> None:
    """Write the files of a checkpoint, the manifest last."""
    for name, arrays in files.items():
        safetensors.write_in_place(folder / f"{name}.safetensors", arrays)
    (folder / STATE).write_bytes(_json(state))
    manifest = {"format": FORMAT, "files": {path.name: _summary(path) for path in sorted(folder.iterdir())}}
    (folder / MANIFEST).write_bytes(_json(manifest))


def _summary(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": digest}


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=1, allow_nan=False) + "\n").encode()


def _steps(directory: Path) -> dict[int, Path]:
    """Return the folders that bear a checkpoint's name, by step."""
    matches = ((_NAME.fullmatch(path.name), path) for path in directory.iterdir())
    return {int(match[1]): path for match, path in matches if match}


def _remove(path: Path) -> None:
    """Remove a checkpoint; killed halfway, nothing is left that bears a checkpoint's name."""
    doomed = path.with_name(f".{path.name}.saving-removed")
    os.replace(path, doomed)
    shutil.rmtree(doomed)
