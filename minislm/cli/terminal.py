"""What verbs print: lines and tables folded to the width of a terminal, texts of models, numbers."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Sequence
from typing import IO, Any

import click

_CONTROLS = re.compile(r"[^\t\n\x20-\x7e\xa0-\U0010ffff]")


def terminal_width(stream: IO[str]) -> int | None:
    """Tell how wide the terminal is that a stream goes to.

    Parameters
    ----------
    stream : text file
        Such as `sys.stdout`.

    Returns
    -------
    int or None
        Columns; None: it goes to no terminal.
    """
    if not stream.isatty():
        return None
    own = 0
    with contextlib.suppress(OSError):
        own = os.get_terminal_size(stream.fileno()).columns
    return shutil.get_terminal_size((own or 80, 24)).columns


def tell(text: str, *, err: bool = False) -> None:
    """Print lines: on a terminal folded between words, so that it does not break them; elsewhere as they are.

    Parameters
    ----------
    text : str
        The lines; a word longer than a line of the terminal, such as a path, stays whole.
    err : bool
        Print on stderr in place of stdout.
    """
    width = terminal_width(sys.stderr if err else sys.stdout)
    if width is not None:
        fold = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False).fill
        text = "\n".join(fold(line) if len(line) > width else line for line in text.split("\n"))
    click.echo(text, err=err)


def print_text(text: str) -> None:
    """Print what a model wrote on stdout: as it is, or without control characters where a terminal would obey them.

    Parameters
    ----------
    text : str
        Any part of it.
    """
    click.echo(_CONTROLS.sub("\ufffd", text) if sys.stdout.isatty() else text, nl=False, color=True)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None, right: Collection[int] = ()
) -> None:
    """Print an aligned table on stdout: on a terminal folded between words to its width; otherwise one line a row.

    Numbers, words and the first cell of a row stay whole. Where they do not fit beside each other even so, the first
    cell stands above the others. A word of another cell is broken if it takes more than half a line.

    Parameters
    ----------
    columns : sequence of str
        Headings.
    rows : iterable of sequences
        Cells; numbers are aligned to the right, whole ones with commas.
    title : str, optional
        Printed above.
    right : collection of int
        Columns of numbers written as text, aligned to the right too.
    """
    rows = [list(row) for row in rows]
    numeric = [
        i in right or (bool(rows) and all(isinstance(row[i], int | float) for row in rows)) for i in range(len(columns))
    ]
    table = [list(columns), *([f"{cell:,}" if type(cell) is int else str(cell) for cell in row] for row in rows)]
    if title:
        tell(title)
    room = terminal_width(sys.stdout)
    if room is None:
        widths = [max(_width(cell) for cell in column) for column in zip(*table, strict=True)]
        click.echo("\n".join(line for row in table for line in _beside(row, widths, numeric, "  ")))
        return
    widths = _widths(table, numeric, room)
    stacked = sum(widths) + len(widths) - 1 > room
    if stacked:
        numeric, widths = numeric[1:], _widths([row[1:] for row in table], numeric[1:], room - 2)
    for number, (first, *others) in enumerate(table):
        if stacked:
            lines = [first, *(f"  {line}" for line in _beside(others, widths, numeric, " "))]
        else:
            lines = _beside([first, *others], widths, numeric, " ")
        click.echo("\n".join(lines if number else [*(click.style(line, bold=True) for line in lines), "\u2500" * room]))


def _width(cell: str, *, of_words: bool = False) -> int:
    """Tell how many columns the longest line, or word, of a cell takes."""
    from rich.cells import cell_len

    return max(map(cell_len, cell.split() if of_words else cell.split("\n")), default=0)


def _widths(table: Sequence[Sequence[str]], numeric: Sequence[bool], room: int) -> list[int]:
    """Share a line out among columns: what numbers and words need, and the rest as far as there is text for it."""
    least, more = [], []
    for i, (heading, *cells) in enumerate(zip(*table, strict=True)):
        whole = max(map(_width, cells), default=0)
        words = max(_width(cell, of_words=True) for cell in (heading, *cells))
        least.append(max(whole, _width(heading, of_words=True)) if numeric[i] or i == 0 else min(words, room // 2))
        more.append(0 if numeric[i] else max(whole, _width(heading)) - least[i])
    left = room - sum(least) - (len(least) - 1)
    share = min(1.0, max(0, left) / max(1, sum(more)))
    return [width + int(share * further) for width, further in zip(least, more, strict=True)]


def _beside(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool], gap: str) -> list[str]:
    """Lay cells out beside each other, each folded to its width."""
    from rich.cells import cell_len, set_cell_size
    from rich.console import Console
    from rich.text import Text

    console = Console()
    folded = [
        [line.plain.rstrip() for line in Text(cell).wrap(console, max(1, width), overflow="fold")]
        for cell, width in zip(cells, widths, strict=True)
    ]
    return [
        gap.join(
            " " * (width - cell_len(line)) + line if to_right else set_cell_size(line, width)
            for line, width, to_right in zip(lines, widths, numeric, strict=True)
        ).rstrip()
        for lines in itertools.zip_longest(*folded, fillvalue="")
    ]


def score(value: float) -> str:
    """Format a probability, or another number of about 1, with digits that mean something however small it is.

    Parameters
    ----------
    value : float
        The number.

    Returns
    -------
    str
        Such as ``"0.250"`` or ``"6.0e-05"``.
    """
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3f}"


def counted(number: int, noun: str) -> str:
    """Say how many there are of something.

    Parameters
    ----------
    number : int
        How many.
    noun : str
        One of them; its plural ends in s.

    Returns
    -------
    str
        Such as ``"1 text"`` or ``"2,000 texts"``.
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
