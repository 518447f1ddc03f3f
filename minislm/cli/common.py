"""What every verb shares: its common options, what it reads, and how its result is printed."""

from __future__ import annotations

import functools
import inspect
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from minislm.cli.terminal import tell
from minislm.errors import DataError, GenerationError, NotFoundError, UsageError

_BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True)
class Common:
    """The options of every verb.

    Parameters
    ----------
    json : bool
        Whether the result is one JSON document.
    quiet : bool
        Whether stderr stays empty unless something fails.
    seed : int
        For everything random.
    """

    json: bool
    quiet: bool
    seed: int

    def note(self, text: str) -> None:
        """Print a line about what goes on, on stderr.

        Parameters
        ----------
        text : str
            The line.
        """
        if not self.quiet:
            tell(text, err=True)

    def result(self, values: Any, render: Callable[[], None]) -> None:
        """Print the result on stdout.

        Parameters
        ----------
        values : Any
            JSON values; numbers that are not finite become null.
        render : callable
            Prints the same for a person; called unless JSON was asked for.
        """
        if self.json:
            click.echo(json.dumps(_finite(values), indent=2, ensure_ascii=False, allow_nan=False))
        else:
            render()


MODEL = "MODEL is a model folder, a GGUF file, or a name in the local cache of the Hugging Face hub."
context_option = click.option(
    "--context", type=click.IntRange(min=1), help="Positions that a model without a table of them is opened with."
)
activations_option = click.option(
    "--activations",
    metavar="HOW",
    help="Inputs of quantized matrices: float or int8; default: as stored, int8 for GGUF files.",
)
attention_option = click.option(
    "--attention",
    metavar="DTYPE",
    default="float32",
    help="How the tokens of a text attend to each other: float32 (the default), or int8, which is faster and off by "
    "about 1 %.",
)


def verb(name: str, *, examples: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of a function ``(common, **options)``, with the options of every verb.

    Parameters
    ----------
    name : str
        The verb.
    examples : str
        Command lines for the help, one on each line.

    Returns
    -------
    callable
        A decorator that goes above the verb's own options; the function's docstring becomes the help, and what a
        ``model`` may be is added to it.
    """
    lines = "\n".join(_folded(line.strip()) for line in examples.strip().splitlines())

    def decorate(function: Callable[..., None]) -> click.Command:
        if "model" in inspect.signature(function).parameters:
            function.__doc__ = f"{inspect.getdoc(function)}\n\n{MODEL}"

        @functools.wraps(function)
        def run(json: bool, quiet: bool, seed: int, threads: int | None, **options: Any) -> None:
            if threads is not None:
                _limit_threads(threads)
            function(Common(json, quiet, seed), **options)

        for option in (
            click.option(
                "--threads", type=click.IntRange(min=1), help="Threads to use; default and most: all processors."
            ),
            click.option(
                "--seed", type=click.IntRange(0, 2**64 - 1), default=0, help="For all randomness; default: 0."
            ),
            click.option("--quiet", is_flag=True, help="Print nothing but the result and errors."),
            click.option("--json", is_flag=True, help="Print the result as one JSON document."),
        ):
            run = option(run)
        return click.command(name, epilog=f"\b\nExamples:\n{lines}")(run)

    return decorate


def _folded(command: str) -> str:
    """Indent a command line and, where 80 columns do not hold it, fold it before options, as a shell takes it."""
    lines = [" "]
    for part in re.findall(r'(?:-\S+ (?=[^-]))?(?:"[^"]*"|\'[^\']*\'|\S)+', command):
        if len(lines[-1]) + len(part) > 74:
            lines.append("     ")
        lines[-1] += f" {part}"
    return " \\\n".join(lines)


def _limit_threads(number: int) -> None:
    """Limit kernels and, where it is not loaded yet, NumPy's BLAS."""
    if "numpy" not in sys.modules:
        os.environ.update(dict.fromkeys(_BLAS_THREADS, str(number)))
    from minislm import dispatch

    dispatch.threads(number)


def check_output(output: Path, source: str | None) -> None:
    """Refuse, before any work, a place where its result would delete something.

    Parameters
    ----------
    output : Path
        Folder of the model that is to be made.
    source : str, optional
        The one that it is made out of, as of `minislm.load`.

    Raises
    ------
    NotFoundError
        Code ``model_not_found``: the source is a name that the hub's cache does not hold.
    UsageError
        Code ``not_a_model_folder``: it holds other files; code ``bad_option``: it is the source, or a
        model that another program wrote.
    """
    from minislm.files.folder import CONFIG, check_replaceable, read_json
    from minislm.files.hub import cached

    check_replaceable(output)
    place = None if source is None else cached(source)
    if place is not None and output.exists() and place.exists() and output.samefile(place):
        raise UsageError("bad_option", f"-o {output} is the model to begin with, and would delete it; name another")
    if (output / CONFIG).exists() and "minislm" not in read_json(output / CONFIG):  # its section of what was saved
        told = (
            f"-o {output} holds a model that minislm did not write, and would delete it; name another, or move it away"
        )
        raise UsageError("bad_option", told)


def read_text(path: str) -> str:
    """Read a text file, or standard input for ``-``.

    Parameters
    ----------
    path : str
        Where.

    Returns
    -------
    str
        The whole text.

    Raises
    ------
    NotFoundError
        Code ``file_not_found``.
    DataError
        Code ``not_utf8``: it is not UTF-8 text.
    """
    if path != "-" and not Path(path).is_file():
        raise NotFoundError("file_not_found", f"no file {path!r}")
    if path == "-":
        return decoded(sys.stdin.buffer.read(), "standard input")
    return decoded(Path(path).read_bytes(), repr(path))


def decoded(data: bytes, place: str) -> str:
    """Take bytes for text.

    Parameters
    ----------
    data : bytes
        UTF-8.
    place : str
        Where they come from.

    Returns
    -------
    str
        The text.

    Raises
    ------
    DataError
        Code ``not_utf8``: they are not UTF-8 text.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            "not_utf8", f"{place} is not UTF-8 text: byte {error.start} is {data[error.start]:#04x}; convert it first"
        ) from error


def text_options(function: Callable[..., None]) -> Callable[..., None]:
    """Let a verb take texts: ``-t``, lines of a file, or lines of standard input; it gets them as ``texts``.

    Parameters
    ----------
    function : callable
        ``(common, texts=..., **options)``; decorated before its other options.

    Returns
    -------
    callable
        The same with the options in place of ``texts``.
    """

    @functools.wraps(function)
    def run(
        common: Common, text: tuple[str, ...], file: str | None, standard_input: str | None, **options: Any
    ) -> None:
        sources = [bool(text), file is not None, standard_input is not None]
        if sum(sources) != 1:
            raise UsageError("bad_option", "give texts in one way: -t TEXT, -f FILE, or - for standard input")
        texts = list(text) if text else _lines(read_text(file or "-"))
        if not texts:
            raise DataError("empty_text", f"{file or 'standard input'} holds no text; give one in each line")
        try:
            function(common, texts=texts, **options)
        except (DataError, GenerationError) as error:
            number = re.match(r"text (\d+)", str(error))
            if text or number is None:
                raise
            place = f"{file or 'standard input'}, line {number[1]}"  # there each text is a line
            raise type(error)(error.code, place + str(error)[number.end() :]) from error

    for option in (
        click.option("-f", "--file", help="A file with one text in each line."),
        click.option("-t", "--text", multiple=True, help="A text; may be repeated."),
        click.argument("standard_input", required=False, type=click.Choice(["-"]), metavar="[-]"),
    ):
        run = option(run)
    return run


def named_fields(names: Iterable[str]) -> Any:
    """Read ``--field`` options.

    Parameters
    ----------
    names : iterable of str
        Each ``FIELD=NAME``, or the NAME of the field ``text`` alone.

    Returns
    -------
    Fields
        Under which names the records of files hold what tasks need.

    Raises
    ------
    UsageError
        Code ``bad_option``: there is no such field.
    """
    from minislm.text.examples import Fields

    pairs = (name.partition("=") for name in names)
    return Fields.named({(field if equals else "text"): (name if equals else field) for field, equals, name in pairs})


def _lines(text: str) -> list[str]:
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _finite(values: Any) -> Any:
    """Replace numbers that JSON cannot say by None."""
    if isinstance(values, dict):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    if isinstance(values, float) and not math.isfinite(values):
        return None
    return values
