"""Errors at the public edge: one class per subject, each with a stable code and a message that says what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator

# What the command line exits with (see `minislm --help`).
FAILURE, USAGE, NOT_FOUND, UNSUPPORTED, GATE_MISSED, INTERRUPTED = 1, 2, 3, 4, 5, 130


class MinislmError(Exception):
    """Base of every error that minislm raises on purpose.

    Parameters
    ----------
    code : str
        Stable identifier, such as ``"truncated"``; programs may rely on it.
    message : str
        What was expected, what came, and what to do about it.
    exit_code : int
        What the command line exits with; each subclass has its own default.
    """

    exit_code = FAILURE

    def __init__(self, code: str, message: str, *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        if exit_code is not None:
            self.exit_code = exit_code


class ConfigError(MinislmError):
    """A configuration that describes no possible model or run."""

    exit_code = USAGE


class DataError(MinislmError):
    """Text, tokens or records that cannot be used."""


class ModelFileError(MinislmError):
    """A model folder or file that is missing, damaged, inconsistent or unsafe."""


class NotFoundError(MinislmError):
    """A path or a bundled name that is not there."""

    exit_code = NOT_FOUND


class UnsupportedError(MinislmError):
    """Something real that minislm does not do; also unknown names, with the nearest known one."""

    exit_code = UNSUPPORTED


class UsageError(MinislmError):
    """Arguments that contradict each other or are out of range."""

    exit_code = USAGE


class TrainingError(MinislmError):
    """Training that cannot go on, such as a loss that is not a number."""


class GenerationError(MinislmError):
    """A prompt or a set of options from which nothing can be generated."""


class GateError(MinislmError):
    """A measured figure that misses the bound asked for."""

    exit_code = GATE_MISSED


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Find the known name that is most like another.

    Parameters
    ----------
    name : str
        The name that came.
    known : iterable of str
        The names that would have been right.

    Returns
    -------
    str or None
        None: none is like it.
    """
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)


def mistyped(name: str, known: Iterable[str]) -> str | None:
    """Find the known name that another must be a slip of the fingers for.

    For names of which others than the known ones exist too: ``bart`` and ``mixtral`` are one letter from ``bert`` and
    ``mistral``, and mean something else.

    Parameters
    ----------
    name : str
        The name that came.
    known : iterable of str
        The names that would have been right.

    Returns
    -------
    str or None
        The one that differs by capitals or separators, by one letter left out or doubled, or by two that are swapped.
    """

    def plain(word: str) -> str:
        return re.sub(r"[^a-z0-9]", "", word.lower())

    def slips(word: str) -> Iterator[str]:
        yield word
        if len(word) < 3:  # too short to tell a slip from another name
            return
        for i, letter in enumerate(word):
            yield word[:i] + letter + word[i:]
            if not letter.isdigit():  # without its version a name means another
                yield word[:i] + word[i + 1 :]
                yield word[:i] + word[i + 1 : i + 2] + letter + word[i + 2 :]

    return next((one for one in known if plain(name) in slips(plain(one))), None)


def relatives(name: str, known: Iterable[str]) -> list[str]:
    """Find the known names of a name's family, which cannot stand for it: ``gemma2`` and the like for ``gemma``.

    Parameters
    ----------
    name : str
        The name that came.
    known : iterable of str
        Others.

    Returns
    -------
    list of str
        Those whose first letters, up to a digit or a sign, begin with its own or the other way round, if at least three
        are the same; or of which one lies in the other, if at least four are, as ``bert`` in ``roberta``.

    Examples
    --------
    >>> relatives("qwen3_moe", ["bert", "mistral", "qwen2", "qwen3"])
    ['qwen2', 'qwen3']
    """

    def stem(word: str) -> str:
        return re.split(r"[^a-z]", word.lower(), maxsplit=1)[0]

    def akin(one: str, other: str) -> bool:
        short, long = sorted((one, other), key=len)
        return (len(short) >= 3 and long.startswith(short)) or (len(short) >= 4 and short in long)

    return [one for one in known if akin(stem(name), stem(one))]


def unknown(kind: str, name: str, known: Iterable[str]) -> UnsupportedError:
    """Make the error for a name that no table holds.

    Parameters
    ----------
    kind : str
        What was looked up, such as ``"method"``.
    name : str
        The name that came.
    known : iterable of str
        The names that would have been right.

    Returns
    -------
    UnsupportedError
        To be raised; code ``"unknown_<kind>"``, message with the nearest match and all known names.
    """
    known = sorted(known)
    meant = nearest(name, known)
    return _unknown(kind, name, known, f" Did you mean {meant!r}?" if meant else "")


def unknown_architecture(name: str, known: Iterable[str]) -> UnsupportedError:
    """Make the error for a published architecture that is not run.

    Parameters
    ----------
    name : str
        The name that came.
    known : iterable of str
        Those that are run.

    Returns
    -------
    UnsupportedError
        To be raised; code ``unknown_architecture``, message with the one that is `mistyped` or with its `relatives`,
        and all known names.
    """
    known = sorted(known)
    meant, family = mistyped(name, known), relatives(name, known)
    hint = (
        f" Did you mean {meant!r}?" if meant else f" Of its family minislm runs {', '.join(family)}." if family else ""
    )
    return _unknown("architecture", name, known, hint)


def _unknown(kind: str, name: str, known: Iterable[str], hint: str) -> UnsupportedError:
    return UnsupportedError(f"unknown_{kind}", f"unknown {kind} {name!r}.{hint} Known: {', '.join(known)}")


def listed(names: Iterable[object]) -> str:
    """List what may be chosen.

    Parameters
    ----------
    names : iterable of object
        The choices, in order.

    Returns
    -------
    str
        For a message.

    Examples
    --------
    >>> listed(["float16", "float32", "float64"])
    'float16, float32 or float64'
    """
    *most, last = map(str, names)
    return f"{', '.join(most)} or {last}" if most else last


def starred(names: Iterable[str]) -> str:
    """List the names of a model's arrays, those of all its blocks once, as patterns would have them.

    Parameters
    ----------
    names : iterable of str
        Full names.

    Returns
    -------
    str
        For a message.

    Examples
    --------
    >>> starred(["embedding.weight", "blocks.0.mlp.up.weight", "blocks.1.mlp.up.weight"])
    'embedding.weight, blocks.*.mlp.up.weight'
    """
    return ", ".join(dict.fromkeys(re.sub(r"\.\d+(?=\.)", ".*", name) for name in names))


def clipped(value: object) -> str:
    """Show something out of a file in a message harmlessly: in ASCII, escaped, of bounded length.

    Parameters
    ----------
    value : object
        Anything.

    Returns
    -------
    str
        At most 80 characters of its representation.
    """
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:55]}... ({len(text)} characters)"
