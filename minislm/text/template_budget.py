"""The budget of one rendering of a chat template: the steps that it may take, and the room for what it makes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from minislm.errors import UnsupportedError

MOST_STEPS = 100_000  # turns of loops, calls and operations of one rendering
MOST_SECONDS = 5.0
LARGEST = 2**20  # characters and elements of one value
ROOM = 2**24  # characters and elements of all values together
PIECE = 32  # what an element takes, in characters
SCANNED = 2**14  # characters and elements that an operation may look at in one step
MOST_SCANNED = 2**27  # and in as many steps as there are: a part of a second


@dataclass
class Budget:
    """What one rendering may still take.

    Parameters
    ----------
    steps : int
        Turns of loops, calls, operations.
    room : int
        Characters and elements of new values.
    largest : int
        Characters and elements of one value.
    seconds : float
        Time; a safeguard, for the other limits depend on nothing but the template and the conversation.
    """

    steps: int = MOST_STEPS
    room: int = ROOM
    largest: int = LARGEST
    seconds: float = MOST_SECONDS
    deadline: float = field(init=False)

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + self.seconds

    def step(self, size: int = 0) -> None:
        """Take a step, or as many as an operation needs that looks at much.

        Parameters
        ----------
        size : int
            Characters and elements that it looks at.

        Raises
        ------
        UnsupportedError
            Code ``template_limit``.
        """
        self.steps -= 1 + size // SCANNED
        if self.steps < 0 or size > MOST_SCANNED:
            raise limit("too many steps")
        if time.monotonic() > self.deadline:
            raise limit(f"more than {self.seconds} seconds")

    def make(self, size: int) -> None:
        """Take room for a new value.

        Parameters
        ----------
        size : int
            Its characters and elements.

        Raises
        ------
        UnsupportedError
            Code ``template_limit``.
        """
        self.room -= max(0, size)
        if size > self.largest or self.room < 0:
            raise limit(f"a value of {size} characters or elements, or too many values")


BUDGET: ContextVar[Budget] = ContextVar("BUDGET")  # of the rendering that runs


def limit(what: str) -> UnsupportedError:
    """Make the error for a template that takes too much.

    Parameters
    ----------
    what : str
        What it takes.

    Returns
    -------
    UnsupportedError
        To be raised; code ``template_limit``.
    """
    return UnsupportedError("template_limit", f"the chat template was stopped: it needs {what}. Use another template")


def measure(value: Any, room: int = 2**62) -> int:
    """Count the characters and elements that a value has when it is written out.

    Parameters
    ----------
    value : Any
        Of plain types; what is of others counts 1.
    room : int
        Counting ends when it is used up.

    Returns
    -------
    int
        The number.
    """
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        parts: Iterable[Any] = (part for item in value.items() for part in item)
    elif isinstance(value, list | tuple | set | frozenset):
        parts = value
    else:
        return 1
    size = 1
    for part in parts:
        size += PIECE + measure(part, room - size)
        if size > room:
            break
    return size
