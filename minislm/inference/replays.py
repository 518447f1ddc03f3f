"""Replays: passes of a Program that are written down before they run, and of which most is then done by one call.

Where kernels are compiled, what a step does is a list of tasks: C functions with the addresses of their arrays. A pass
of the same shape does the same tasks over the same memory; only what the sequence table and the ids say is other, and
that too stands in memory. So a pass is written down, and others of its shape write their table and ids over its own and
let the pool do all the tasks, in one call without the GIL. Steps of which Python does a part are called as before,
between two such calls. Step by step runs the first pass of a program, in which kernels check the matrices that they are
given, and the first of a shape that has few rows, because writing it down would take longer.

Between two attentions no row needs another one. There a pass over many rows goes block by block through all the tasks
(`c/joined.h`): what is written about a block stays in the nearest caches, and no thread waits for another.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from minislm.dispatch import compiled, threads
from minislm.inference.passes import Pass

if TYPE_CHECKING:
    from minislm.inference.program import Program

MOST_SHAPES = 64  # of passes that are kept for a cache
MANY_ROWS = 256  # that gain more by going block by block than it takes to write their pass down


class Replays:
    """The passes that a Program has written down, for each cache those of the last shapes."""

    def __init__(self) -> None:
        self._begun = False
        self._of: weakref.WeakKeyDictionary[Any, dict[Any, Replay | None]] = weakref.WeakKeyDictionary()

    def run(self, program: Program, current: Pass, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """Run a pass, from what is written down if there is one of its shape.

        Parameters
        ----------
        program : Program
            Whose steps it takes.
        current : Pass
            The pass.
        inputs : list of ndarray
            The buffers that are filled before the first step.

        Returns
        -------
        list of ndarray
            All buffers.
        """
        kernels = compiled()
        if kernels is None:
            return _by_steps(program, current, inputs)
        shapes = self._of.setdefault(getattr(current, "cache", self), {})
        conditions = threads(), kernels.chosen()
        shape = type(current), current.n_rows, current.n_chosen, current.counts_B.size, *current.reach, *conditions
        known = shape in shapes or (self._begun and current.n_rows >= MANY_ROWS)
        self._begun = True
        replay = shapes.pop(shape, None)
        if known:
            replay = replay or Replay(program, current, inputs, kernels.Recording)
            replay.run(current, inputs)
        shapes[shape] = replay  # the last one
        if len(shapes) > MOST_SHAPES:
            del shapes[next(iter(shapes))]
        return replay.buffers if replay else _by_steps(program, current, inputs)


class Replay:
    """A pass that can be run often.

    Parameters
    ----------
    program : Program
        Whose steps it takes.
    current : Pass
        A pass of its shape.
    inputs : list of ndarray
        The buffers that are filled before the first step.
    recording : type
        `Recording` of the compiled kernels.

    Attributes
    ----------
    buffers : list of ndarray
        Of the last run.
    recordings : list of Recording
        Of the compiled kernels.
    """

    def __init__(self, program: Program, current: Pass, inputs: list[np.ndarray], recording: type) -> None:
        self._table = {name: array.copy() for name, array in vars(current).items() if isinstance(array, np.ndarray)}
        cache = getattr(current, "cache", None)
        own: dict[str, Any] = dict(self._table)
        if cache is not None:
            own["cache"] = weakref.proxy(cache)  # or it would never go
        mine = dataclasses.replace(current, **own)
        self.buffers = [array.copy() for array in inputs]
        self.buffers[program.positions] = mine.positions_N
        known = [*program.memory, *self.buffers, *self._table.values(), *(() if cache is None else cache.arrays())]
        self.recordings = list[Any]()
        self._parts = list[Callable[[], Any]]()  # what they run, and steps that stand between them
        self._n_inputs, now, n_threads = len(inputs), recording(known), threads()
        for step, call in program.calls(mine, self.buffers):
            constants = [array for array in step.constants if isinstance(array, np.ndarray)]
            with np.errstate(all="ignore"):  # what Python does of it now, it does with any numbers
                if now.step(call, self.buffers[-1], constants):
                    continue
            self._end(now, n_threads)
            self._parts.append(call)
            now = recording(known)
        self._end(now, n_threads)

    def _end(self, recording: Any, n_threads: int) -> None:
        """Let a recording be run from now on."""
        recording.join(n_threads)
        self.recordings.append(recording)
        self._parts.append(partial(recording.run, n_threads))

    def run(self, current: Pass, inputs: list[np.ndarray]) -> None:
        """Run a pass of the shape.

        Parameters
        ----------
        current : Pass
            The pass.
        inputs : list of ndarray
            The buffers that are filled before the first step.
        """
        for name, mine in self._table.items():
            mine[...] = getattr(current, name)
        for mine, array in zip(self.buffers[: self._n_inputs], inputs, strict=True):
            mine[...] = array
        for part in self._parts:
            part()


def _by_steps(program: Program, current: Pass, inputs: list[np.ndarray]) -> list[np.ndarray]:
    buffers = list(inputs)
    for _, call in program.calls(current, buffers):
        call()
    return buffers
