"""Records: what a user's JSONL, CSV or text file holds, each with the line where it stands.

A file whose name ends in ``.gz`` is unpacked as it is read.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from minislm.errors import DataError, NotFoundError

DELIMITERS = {".csv": ",", ".tsv": "\t"}


class Record(NamedTuple):
    """A line of JSONL, a row of a table or a line of text.

    Parameters
    ----------
    values : mapping of str to object
        Fields by name; a line of text has the one field ``text``.
    path : Path
        The file.
    line : int
        Where the record begins there, from 1.
    """

    values: Mapping[str, Any]
    path: Path
    line: int

    def get(self, name: str) -> Any:
        """Look a field up.

        Parameters
        ----------
        name : str
            Its name; ``translation.de`` is the field ``de`` of the field ``translation``.

        Returns
        -------
        object
            None: there is no such field, or it is null.
        """
        value: Any = self.values
        if name in self.values:
            return self.values[name]
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def text(self, name: str) -> str:
        """Look up a field that must be text.

        Parameters
        ----------
        name : str
            As of `get`.

        Returns
        -------
        str
            The text.

        Raises
        ------
        DataError
            Code ``bad_record``.
        """
        value = self.get(name)
        if not isinstance(value, str):
            raise self.error("bad_record", f"expected text under {name!r}; mend or remove the line")
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise self.error("bad_record", f"the text under {name!r} holds half a character; mend or remove the line")
        return value

    def error(self, code: str, message: str) -> DataError:
        """Make an error that names the place.

        Parameters
        ----------
        code : str
            Of the error.
        message : str
            What was expected, and what to do.

        Returns
        -------
        DataError
            To be raised.
        """
        return DataError(code, f"{self.path}, line {self.line}: {message}")


def is_table(path: Path) -> bool:
    """Tell whether a file holds records with named fields.

    Parameters
    ----------
    path : Path
        Its name counts alone.

    Returns
    -------
    bool
        False: it is plain text.
    """
    return _suffix(path) in (".jsonl", *DELIMITERS)


def read_records(path: Path, columns: Sequence[str] = ()) -> Iterator[Record]:
    """Read a file.

    Parameters
    ----------
    path : Path
        JSONL (``.jsonl``), a table with a line of headings (``.csv``, ``.tsv``), or anything else: plain text, each
        line a record, empty ones too.
    columns : sequence of str
        Fields that a table must have.

    Yields
    ------
    Record
        In order. Empty lines of JSONL and of tables are passed over.

    Raises
    ------
    NotFoundError
        Code ``file_not_found``.
    DataError
        Code ``file_unreadable``, ``binary_text``, ``bad_record`` or ``column_missing``, with the place.
    """
    text = read_text(path)
    if _suffix(path) == ".jsonl":
        yield from _json_lines(path, text)
    elif is_table(path):
        yield from _rows(path, text, DELIMITERS[_suffix(path)], columns)
    else:
        lines = text.replace("\r\n", "\n").split("\n")
        for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines, start=1):
            yield Record({"text": line}, path, number)


def read_text(path: Path) -> str:
    """Read a text file, refusing what is none.

    Parameters
    ----------
    path : Path
        UTF-8, with or without a mark at its beginning.

    Returns
    -------
    str
        The text.

    Raises
    ------
    NotFoundError
        Code ``file_not_found``.
    DataError
        Code ``file_unreadable``, or ``binary_text`` with line and number of the first byte that is no text.
    """
    if not path.is_file():
        raise NotFoundError("file_not_found", f"there is no file {path}")
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError("file_unreadable", f"{path} cannot be read: {reason}") from error
    place, what = data.find(b"\0"), "a NUL byte"
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        if place < 0 or error.start < place:
            place, what = error.start, f"the byte 0x{data[error.start]:02x}, which is no UTF-8"
    if place >= 0:
        line = data.count(b"\n", 0, place) + 1
        raise DataError(
            "binary_text", f"{path}, line {line} is no text: byte {place} is {what}. Give a text file, saved as UTF-8"
        )
    return text.removeprefix("\ufeff")


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix


def _json_lines(path: Path, text: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
        record = Record(values, path, number)
        if not isinstance(values, dict):
            raise record.error("bad_record", "expected a JSON object; mend or remove the line")
        yield record


def _rows(path: Path, text: str, delimiter: str, columns: Sequence[str]) -> Iterator[Record]:
    """Read a table; a row may go over several lines, within quotes."""
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # all of it is in memory: any field is welcome
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    headings: list[str] = []
    line = 1
    try:
        for row in reader:
            record, line = Record(dict(zip(headings, row, strict=False)), path, line), reader.line_num + 1
            if not row:
                continue
            if not headings:
                headings = row
                if twice := [name for i, name in enumerate(headings) if name and name in headings[:i]]:
                    raise record.error("bad_record", f"the column {twice[0]!r} stands twice; mend the line of headings")
                if missing := [name for name in columns if name not in headings]:
                    raise record.error(
                        "column_missing",
                        f"there is no column {missing[0]!r} among {', '.join(map(repr, headings))}; "
                        "name the right one with --field, or mend the line of headings",
                    )
            elif len(row) != len(headings):
                raise record.error("bad_record", f"{len(row)} values, and {len(headings)} columns; mend the line")
            else:
                yield record
    except csv.Error as error:
        message = f"{error}; mend the row that begins here, and look for a quote without its partner"
        raise Record({}, path, line).error("bad_record", message) from error
