"""Run by test_folder.py in a process of its own: save a folder while every step of the save is killed or fails in turn.

Prints one JSON object: how many steps were tried, and what went wrong (nothing, if all is well).
"""

import contextlib
import errno
import json
import os
import resource
import signal
import sys
from pathlib import Path

import numpy as np

from minislm.errors import ModelFileError, NotFoundError
from minislm.files.durable import standing
from minislm.files.folder import ModelFolder, read_folder, write_folder

# What changes the disk or brings it there, as called from Python; the end of a ``with`` block writes what is left.
STEPS = {
    "open", "write", "close", "__exit__", "fsync", "flock", "mkdir", "replace", "rename", "unlink", "rmdir",
}  # fmt: skip


def content(mark):
    array = np.full((5, 7), mark, np.float32)
    return ModelFolder(
        {"mark": mark}, {"a": array, "b": array[::2, ::3]}, {"mark": mark}, {"tokenizer.json": f'{{"mark":{mark}}}'}
    )


def mark_of(path):
    """Read the folder whole: its mark, the same in all files, or None if there is no folder."""
    try:
        found, path = read_folder(path), standing(path)
    except NotFoundError:
        return None
    marks = {found.config["mark"], found.generation["mark"], json.loads((path / "tokenizer.json").read_text())["mark"]}
    marks |= {float(value) for array in found.arrays.values() for value in array.flat}
    assert len(marks) == 1, marks
    return marks.pop()


def at_step(n, act):
    """Call `act` when the n-th step is about to begin; return a counter of all steps."""
    seen = []

    def profile(frame, event, argument):
        if event == "c_call" and argument.__name__ in STEPS:
            seen.append(argument.__name__)
            if len(seen) == n:
                sys.setprofile(None)
                act()

    sys.setprofile(profile)
    return seen


def in_child(function):
    """Run a function in a forked process; tell how that ended."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            function()
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(path, n):
    """Save, killed at step n; whether it came to the end first."""

    def save():
        at_step(n, lambda: os.kill(os.getpid(), signal.SIGKILL))
        write_folder(path, content(2))

    return in_child(save) == 0


def saved(path):
    """Save; return the code of the error, if there is one."""
    try:
        write_folder(path, content(2))
    except ModelFileError as error:
        return error.code
    return None


def failed(path, n):
    """Save, with no space left at step n; whether it came to the end first."""

    def fail():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    seen = at_step(n, fail)
    try:
        code = saved(path)
    finally:
        sys.setprofile(None)
    assert code in (None, "disk_full", "not_regular_file"), code  # the last one when it cannot be read back
    return code is None and len(seen) < n


def limited(path, n):
    """Save where no file may grow beyond 40 n bytes, as on a full disk; whether that was enough."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (40 * n, hard))
    try:
        code = saved(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    if code is not None:
        assert code == "disk_full", code
        assert mark_of(path) != 2
        assert os.listdir(path.parent) == ["model"] * path.exists()
    return code is None


def check_every_step(directory, save, *, exists):
    """Break a save at each step; the old or the new must stand then, and the next save must leave nothing over."""
    path, n, wrong = directory / "model", 0, []
    while n < 500:
        n += 1
        if exists:
            write_folder(path, content(1))
        ended = save(path, n)
        mark = mark_of(path)
        if mark not in ({2} if ended else {1, 2} if exists else {None, 2}):
            wrong.append(f"step {n}: found {mark}")
        write_folder(path, content(3))
        if mark_of(path) != 3 or os.listdir(directory) != ["model"]:
            wrong.append(f"step {n}: left {os.listdir(directory)}")
        if ended:
            break
        if not exists:
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
    return {"steps": n, "wrong": wrong}


if __name__ == "__main__":
    kind, exists = sys.argv[2], sys.argv[3] == "replace"
    write_folder(Path(sys.argv[1]) / "model", content(3))  # import everything before the first count
    if not exists:
        for file in (Path(sys.argv[1]) / "model").iterdir():
            file.unlink()
        (Path(sys.argv[1]) / "model").rmdir()
    save = {"kill": killed, "fail": failed, "limit": limited}[kind]
    print(json.dumps(check_every_step(Path(sys.argv[1]), save, exists=exists)))
