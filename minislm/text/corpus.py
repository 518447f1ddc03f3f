"""Corpora: documents to train on and documents held out, from the interpreter itself, from files, folders, JSONL, CSV.

Real text repeats itself, and what was seen in training must not come back in the examination. So paragraphs that occur
twice are dropped first; then documents are gathered into clusters (a document that shared much of its text with another
goes where that one goes), the clusters are put into the order of their hashes, and the first of them, until they are a
tenth of the bytes, are held out. All of it depends on the texts alone.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from minislm.errors import DataError, NotFoundError
from minislm.text.records import is_table, read_records, read_text

HELD_OUT = 0.1  # at least this part of the bytes
COPY = 0.25  # a document that shares this part of its bytes with another belongs to its cluster ...
COPIES = 3  # ... not counting paragraphs that stand in more documents than this, such as a licence
PARTS = 50  # a document that is more than the held-out part of the corpus is cut into about so many


@dataclass(frozen=True)
class Corpus:
    """Text to train on and text to examine with; no paragraph occurs in both, or twice in either.

    Parameters
    ----------
    train : tuple of str
        Documents; paragraphs are separated as they were in the source, by an empty line or by the end of a line.
    held_out : tuple of str
        Documents that training never sees, at least a tenth of all bytes.
    """

    train: tuple[str, ...]
    held_out: tuple[str, ...]

    @property
    def train_bytes(self) -> int:
        """Bytes (UTF-8) to train on."""
        return sum(map(_n_bytes, self.train))

    @property
    def held_out_bytes(self) -> int:
        """Bytes (UTF-8) held out."""
        return sum(map(_n_bytes, self.held_out))


def python_corpus() -> Corpus:
    """Read the text that every Python carries: the language reference and the docstrings of the standard library.

    Returns
    -------
    Corpus
        About 2 MB; the same for the same interpreter. No module is imported or executed.

    Raises
    ------
    DataError
        Code ``text_too_short``: this interpreter was installed without its library's source.
    """
    from minislm.text.python_source import python_documents

    return from_documents(python_documents())


def from_files(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, pattern: str = "*.txt", field: str = "text"
) -> Corpus:
    """Read text files, JSONL and CSV files, and folders of them.

    Parameters
    ----------
    paths : path or iterable of path
        Text files, each a document (UTF-8); files named ``.jsonl``, ``.csv`` or ``.tsv``, each record a document;
        folders. A file may be packed: ``.gz``.
    pattern : str
        Which files of a folder and of the folders in it are read.
    field : str
        Where a record has its text.

    Returns
    -------
    Corpus
        Documents in the order of `paths`, those of a folder by name.

    Raises
    ------
    NotFoundError
        Code ``file_not_found``.
    DataError
        Code ``empty_text``: a path gives no text. Code ``binary_text``: a file is no UTF-8 text, with the place of the
        first byte that shows it. Code ``bad_record``: a record has no text, with its line. Code ``column_missing``: a
        table has no such column. Code ``text_too_short``.
    """
    return from_documents(read_documents(paths, pattern=pattern, field=field))


def read_documents(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, pattern: str = "*.txt", field: str = "text"
) -> list[str]:
    """Read files and folders as `from_files` does, and leave the documents as they are.

    Parameters
    ----------
    paths : path or iterable of path
        As of `from_files`.
    pattern, field : str
        As of `from_files`.

    Returns
    -------
    list of str
        Documents in the order of `paths`.

    Raises
    ------
    NotFoundError, DataError
        As `from_files`, but for ``text_too_short``.
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    documents: list[str] = []
    for path in map(Path, paths):
        found = [text for file in _files(path, pattern) for text in _documents(file, field)]
        if not any(text.strip() for text in found):
            raise DataError("empty_text", f"{path} holds no text; give another path, pattern or field")
        documents += found
    return documents


def from_documents(documents: Iterable[str]) -> Corpus:
    """Drop duplicate paragraphs and hold out at least a tenth.

    Parameters
    ----------
    documents : iterable of str
        Any texts.

    Returns
    -------
    Corpus
        What is left, documents in their order.

    Raises
    ------
    DataError
        Code ``text_too_short``: fewer than two different paragraphs.
    """
    parts, clusters = _without_duplicates(_cut([_paragraphs(text) for text in documents]))
    texts = {i: text for i, text in enumerate(parts) if text}
    held_out = _held_out(texts, clusters)
    if len(held_out) == len(texts):
        raise DataError(
            "text_too_short",
            "the text is too short or repeats itself too much: nothing would be left to train on beside what is held "
            "out. Give more text, in several documents or paragraphs (separated by an empty line or the end of a line)",
        )
    return Corpus(
        tuple(text for i, text in texts.items() if i not in held_out),
        tuple(text for i, text in texts.items() if i in held_out),
    )


class _Document(NamedTuple):
    """A text taken apart; joined by the separator, its paragraphs are a text again."""

    paragraphs: tuple[str, ...]
    separator: str

    @property
    def text(self) -> str:
        return self.separator.join(self.paragraphs)


def _paragraphs(text: str) -> _Document:
    """Take a text apart at empty lines, or at the ends of lines if there are no empty ones."""
    text = text.replace("\r\n", "\n").strip("\n")
    parts, separator = re.split(r"\n\s*\n", text), "\n\n"
    if len(parts) == 1:
        parts, separator = text.split("\n"), "\n"
    return _Document(tuple(part.rstrip() for part in parts if part.strip()), separator)


def _cut(documents: Sequence[_Document]) -> list[_Document]:
    """Cut documents that are too long to be held out whole into runs of paragraphs."""
    sizes = [_n_bytes(document.text) for document in documents]
    found: list[_Document] = []
    for document, size in zip(documents, sizes, strict=True):
        if size <= HELD_OUT * sum(sizes):
            found.append(document)
            continue
        first, run_bytes = 0, 0
        for last, paragraph in enumerate(document.paragraphs, start=1):
            run_bytes += _n_bytes(paragraph)
            if run_bytes * PARTS >= size or last == len(document.paragraphs):
                found.append(_Document(document.paragraphs[first:last], document.separator))
                first, run_bytes = last, 0
    return found


def _without_duplicates(documents: Sequence[_Document]) -> tuple[list[str], list[int]]:
    """Return each document's text without the paragraphs that stood before, and the first document of its cluster."""
    keys = [[" ".join(paragraph.split()).casefold() for paragraph in document.paragraphs] for document in documents]
    spread = Counter(key for own in keys for key in set(own))
    owners: dict[str, int] = {}
    clusters = list(range(len(documents)))
    texts = []
    for i, document in enumerate(documents):
        shared: Counter[int] = Counter()
        new = []
        for key, paragraph in zip(keys[i], document.paragraphs, strict=True):
            if key not in owners:
                owners[key] = i
                new.append(paragraph)
            elif owners[key] != i and spread[key] <= COPIES:
                shared[owners[key]] += _n_bytes(paragraph)
        for other, n_bytes in shared.most_common(1):
            if n_bytes >= COPY * _n_bytes(document.text):
                clusters[i] = clusters[other]
        texts.append(document.separator.join(new))
    return texts, clusters


def _held_out(texts: Mapping[int, str], clusters: Sequence[int]) -> set[int]:
    """Choose the documents to hold out: clusters by hash, and not twice as much as needed if that can be avoided."""
    members: dict[int, list[int]] = {}
    for i in texts:
        members.setdefault(clusters[i], []).append(i)
    hashes = {root: hashlib.sha256("\0".join(texts[i] for i in own).encode()).digest() for root, own in members.items()}
    total = sum(map(_n_bytes, texts.values()))
    chosen: set[int] = set()
    size = 0
    for most in (2 * HELD_OUT * total, total):
        for root in sorted(members, key=hashes.__getitem__):
            more = sum(_n_bytes(texts[i]) for i in members[root])
            if size < HELD_OUT * total and root not in chosen and size + more <= most:
                chosen.add(root)
                size += more
    return {i for root in chosen for i in members[root]}


def _files(path: Path, pattern: str) -> list[Path]:
    """List the files that a path stands for."""
    if path.is_dir():
        return sorted(file for file in path.rglob(pattern) if file.is_file())
    if not path.is_file():
        raise NotFoundError("file_not_found", f"there is no file or folder {path}")
    return [path]


def _documents(path: Path, field: str) -> list[str]:
    """Read the documents of one file."""
    if is_table(path):
        return [record.text(field) for record in read_records(path, (field,))]
    return [read_text(path)]


def _n_bytes(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))
