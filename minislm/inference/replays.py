"""Replays: passes of a Program that were run step by step once, and of which most is done again by one call.

Where kernels are compiled, what a step does is a list of tasks: C functions with the addresses of their arrays. A pass
of the same shape does the same tasks over the same memory; only what the sequence table and the ids say is other, and
that too stands in memory. So the second pass of a shape is written down as it runs, and those after it write their
table and ids over its own and let the pool do all the tasks, in one call without the GIL. Steps of which Python does a
part are called as before, between two such calls.

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


class Replays:
    """The passes that a Program has written down, for each cache those of the last shapes."""

    def __init__(self) -> None:
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
        if shape in shapes:
            replay = shapes.pop(shape)
            if replay is None:
                replay = Replay(program, current, inputs, kernels.Recording)
            else:
                replay.run(current, inputs)
            shapes[shape] = replay  # the last one
            return replay.buffers
        shapes[shape] = None
        if len(shapes) > MOST_SHAPES:
            del shapes[next(iter(shapes))]
        return _by_steps(program, current, inputs)


class Replay:
    """A pass that can be run again.

    Parameters
    ----------
    program : Program
        Whose steps it takes.
    current : Pass
        A pass of its shape, which is run.
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
        others: dict[str, Any] = {} if cache is None else {"cache": weakref.proxy(cache)}  # or it would never go
        mine = dataclasses.replace(current, **self._table, **others)
        self.buffers = [array.copy() for array in inputs]
        self.buffers[program.positions] = mine.positions_N
        known = [*program.memory, *self.buffers, *self._table.values(), *(() if cache is None else cache.arrays())]
        self.recordings = list[Any]()
        self._parts = list[Callable[[], Any]]()  # what they run, and steps that stand between them
        self._n_inputs, now, n_threads = len(inputs), recording(known), threads()
        for step, call in program.calls(mine, self.buffers):
            constants = [array for array in step.constants if isinstance(array, np.ndarray)]
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
        """Run another pass of the shape.

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
