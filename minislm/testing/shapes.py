"""The shape checker: array names end in their axes, and a machine reads along.

A local array named ``q_BTHK`` must have four axes, and a letter (with the digit that may follow it) stands for one size
throughout a call. Checked whenever a function of the package returns; functions that end by an exception are not.
"""

from __future__ import annotations

import contextlib
import dis
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from types import CodeType, FrameType
from typing import Any

import numpy as np

_SUFFIX = re.compile(r"[a-z].*_((?:[A-Z]\d*)+)$")
_AXIS = re.compile(r"[A-Z]\d*")
_RETURNS = {dis.opmap[name] for name in ("RETURN_VALUE", "RETURN_CONST", "YIELD_VALUE") if name in dis.opmap}


@contextlib.contextmanager
def checked_shapes(folders: Sequence[str] | None = None) -> Iterator[list[str]]:
    """Check the shape suffixes of every function that returns inside the ``with`` block, in this thread.

    Parameters
    ----------
    folders : sequence of str, optional
        Functions from files below these are checked; None: those of minislm and of its kernels.

    Yields
    ------
    list of str
        The complaints so far.

    Raises
    ------
    AssertionError
        At the end of the block, with all complaints.

    Examples
    --------
    >>> from minislm.ops.linear import linear
    >>> with checked_shapes():
    ...     y, saved = linear(np.ones((2, 3)), np.ones((4, 3)))
    """
    checker = _Checker(_own_folders() if folders is None else tuple(folders))
    before = sys.getprofile()
    sys.setprofile(checker)
    try:
        yield checker.complaints
    finally:
        sys.setprofile(before)
    if checker.complaints:
        raise AssertionError("\n".join(checker.complaints))


def axes_of(name: str) -> tuple[str, ...]:
    """Split the suffix of an array's name into its axes.

    Parameters
    ----------
    name : str
        Such as ``w_O1I``.

    Returns
    -------
    tuple of str
        Such as ``("O1", "I")``; empty where the name has no suffix.
    """
    match = _SUFFIX.match(name)
    return tuple(_AXIS.findall(match[1])) if match else ()


def _own_folders() -> tuple[str, ...]:
    names = ("minislm", "minislm.kernels")
    specs = [importlib.util.find_spec(name) for name in names]
    return tuple(folder for spec in specs if spec for folder in spec.submodule_search_locations or ())


class _Checker:
    """The profile hook: looks at a frame's local arrays when its function returns."""

    def __init__(self, folders: tuple[str, ...]) -> None:
        self.folders = folders
        self.complaints: list[str] = []
        self.known: dict[CodeType, tuple[bytes, dict[str, tuple[str, ...]]]] = {}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event != "return":
            return
        known = self.known.get(frame.f_code)
        if known is None:
            known = self.known[frame.f_code] = self.read(frame.f_code)
        instructions, names = known
        # The hook gets None both from `return None` and from an exception passing through: the instruction tells.
        if names and (argument is not None or instructions[frame.f_lasti] in _RETURNS):
            self.check(frame, names)

    def read(self, code: CodeType) -> tuple[bytes, dict[str, tuple[str, ...]]]:
        if not code.co_filename.startswith(self.folders):
            return b"", {}
        names = {*code.co_varnames, *code.co_cellvars, *code.co_freevars}
        return code.co_code, {name: axes for name in sorted(names) if (axes := axes_of(name))}

    def check(self, frame: FrameType, names: dict[str, tuple[str, ...]]) -> None:
        sizes: dict[str, tuple[int, str]] = {}
        for name, axes in names.items():
            array = frame.f_locals.get(name)
            if not isinstance(array, np.ndarray):
                continue
            if array.ndim != len(axes):
                self.complain(
                    frame, f"{name} has shape {array.shape}, {array.ndim} axes where its name says {len(axes)}"
                )
                continue
            for axis, size in zip(axes, array.shape, strict=True):
                first_size, first_name = sizes.setdefault(axis, (size, name))
                if size != first_size:
                    self.complain(frame, f"{axis} is {size} in {name} and {first_size} in {first_name}")

    def complain(self, frame: FrameType, what: str) -> None:
        code = frame.f_code
        self.complaints.append(f"{code.co_filename}:{code.co_firstlineno} {code.co_qualname}: {what}")
