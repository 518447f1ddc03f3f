"""Spares: programs that wait for the next call, with the buffers and the passes that they have written down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minislm.dispatch import runs_compiled
from minislm.inference.program import Program

MOST = 4  # of one kind: calls at once beyond so many leave nothing behind


class Spares:
    """Programs of one model; one that is taken is the caller's alone until it gives it back.

    Who fails does not give back, and the next call lowers the model anew. Threads may take and give at once, and a
    forked process has what its parent did not use; copies begin with nothing.
    """

    def __init__(self) -> None:
        self._waiting: dict[Any, list[Program]] = {}

    def take(self, kind: str, make: Callable[[], Program]) -> Program:
        """Return a program that nobody uses.

        Parameters
        ----------
        kind : str
            What it does.
        make : callable
            Makes one of this kind, if none waits.

        Returns
        -------
        Program
            To be given back.
        """
        try:
            return self._waiting[self._key(kind)].pop()
        except (KeyError, IndexError):
            return make()

    def give(self, kind: str, program: Program) -> None:
        """Let a program wait for the next call.

        Parameters
        ----------
        kind : str
            As it was taken.
        program : Program
            Which the caller no longer uses.
        """
        waiting = self._waiting.setdefault(self._key(kind), [])
        if len(waiting) < MOST:
            waiting.append(program)

    def forget(self) -> None:
        """Release all memory of the programs that wait."""
        self._waiting.clear()

    def __reduce__(self) -> tuple[type[Spares], tuple[()]]:
        """Copy as new: passes that are written down hold addresses."""
        return Spares, ()

    @staticmethod
    def _key(kind: str) -> tuple[str, bool]:
        return kind, runs_compiled("panel_product")  # by which matrices are laid out
