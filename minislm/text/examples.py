"""Examples for tasks: labelled texts and pairs of texts, read from a user's files and checked line by line.

Fields have the names that the Hugging Face community gives them, unless `Fields` says otherwise. Whatever is wrong with
a record is said with its file and line, before anything is trained.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from minislm.errors import DataError, UsageError, clipped
from minislm.text.records import Record, is_table, read_records
from minislm.text.spans import OUTSIDE, Span


@dataclass(frozen=True)
class Fields:
    """Under which names records hold what tasks need.

    Parameters
    ----------
    text, text_pair : str
        A text, and a second one that belongs to it, if there is one.
    label : str
        The text's class: text or a whole number.
    tokens, tags : str
        The text as a list of words, and a BIO tag for each of them; in a table both are separated by spaces.
    spans : str
        In place of them: a list of objects with ``start``, ``end`` (characters of the text) and ``label``.
    question, context, answers : str
        As SQuAD has them: `answers` holds a list ``text`` and a list ``answer_start``, empty where there is no answer.
    source, target : str
        A text, and what is to be made of it.
    """

    text: str = "text"
    text_pair: str = "text_pair"
    label: str = "label"
    tokens: str = "tokens"
    tags: str = "tags"
    spans: str = "spans"
    question: str = "question"
    context: str = "context"
    answers: str = "answers"
    source: str = "source"
    target: str = "target"

    @classmethod
    def named(cls, names: Mapping[str, str]) -> Self:
        """Give some fields other names.

        Parameters
        ----------
        names : mapping of str to str
            Names in the files, by the names here.

        Returns
        -------
        Fields
            The others have their usual names.

        Raises
        ------
        UsageError
            Code ``bad_option``: there is no such field.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        if strange := sorted(set(names) - set(known)):
            raise UsageError("bad_option", f"there is no field {strange[0]!r} to rename; there are {', '.join(known)}")
        return cls(**names)


USUAL = Fields()


class LabelledText(NamedTuple):
    """A text, and what an encoder should say about it.

    Parameters
    ----------
    record : Record
        Where it stands.
    text : str
        The text, or the question.
    pair : str, optional
        The second text, or the context of the question.
    label : str, optional
        Its class; None: not asked.
    spans : tuple of Span, optional
        Its parts, in order; None: not asked.
    answers : tuple of Span, optional
        Parts of `pair` that answer the question; empty: it has no answer; None: not asked.
    """

    record: Record
    text: str
    pair: str | None = None
    label: str | None = None
    spans: tuple[Span, ...] | None = None
    answers: tuple[Span, ...] | None = None


class TextPair(NamedTuple):
    """A text, and what an encoder-decoder should make of it.

    Parameters
    ----------
    record : Record
        Where the source stands.
    source, target : str
        Both texts.
    target_record : Record, optional
        Where the target stands; None: where the source does.
    """

    record: Record
    source: str
    target: str
    target_record: Record | None = None

    def place(self, side: str) -> Record:
        """Look up where one of the texts stands.

        Parameters
        ----------
        side : {"source", "target"}
            Which.

        Returns
        -------
        Record
            For errors.
        """
        return self.target_record or self.record if side == "target" else self.record


def read_labelled(paths: Iterable[Path], tasks: Sequence[str], fields: Fields = USUAL) -> list[LabelledText]:
    """Read labelled texts.

    Parameters
    ----------
    paths : iterable of Path
        JSONL and tables.
    tasks : sequence of {"classify", "tag", "answer"}
        What each text is labelled for: one, or "classify" and "tag" together.
    fields : Fields
        Names in the files.

    Returns
    -------
    list of LabelledText
        In order.

    Raises
    ------
    NotFoundError
        Code ``file_not_found``.
    DataError
        Codes ``column_missing``, ``bad_record``, ``empty_text``, ``labels_missing``, ``labels_misaligned``,
        ``unknown_label``, ``spans_overlap``, ``span_outside_text``; all with file and line, or the file that is empty.
    UsageError
        Code ``bad_option``: no file, or plain text, which has no labels.
    """
    columns = {
        "classify": (fields.text, fields.label),
        "tag": (fields.tokens, fields.tags),
        "answer": (fields.question, fields.context, fields.answers),
    }
    wanted = [name for task in tasks for name in columns[task] if "tag" not in tasks or name != fields.text]
    read = _answered if "answer" in tasks else _classed_and_tagged
    tables = _tables(paths, wanted, "labels need named fields: give JSONL (.jsonl) or CSV (.csv)")
    return [read(record, tasks, fields) for record in tables]


def read_pairs(paths: Sequence[Path], fields: Fields = USUAL) -> list[TextPair]:
    """Read pairs of texts.

    Parameters
    ----------
    paths : sequence of Path
        JSONL and tables, or two plain text files: each line of the first with the same line of the second.
    fields : Fields
        Names in the files.

    Returns
    -------
    list of TextPair
        In order.

    Raises
    ------
    NotFoundError
        Code ``file_not_found``.
    DataError
        Codes ``column_missing``, ``bad_record``, ``pairs_differ``, ``empty_source``, ``empty_target``, all with file
        and line; ``empty_text``: a file holds nothing.
    UsageError
        Code ``bad_option``: no file, or plain text files that are not two.
    """
    if len(paths) == 2 and not any(map(is_table, paths)):
        pairs = [TextPair(a, a.values["text"], b.values["text"], b) for a, b in _parallel(*paths)]
    else:
        names = (fields.source, fields.target)
        tables = _tables(
            paths, names, "pairs stand in two text files, line by line, or in JSONL (.jsonl) and CSV (.csv)"
        )
        pairs = [TextPair(record, record.text(names[0]), record.text(names[1])) for record in tables]
    if not pairs:
        raise DataError("empty_text", f"{paths[0]} and {paths[1]} are empty; give files with a text in each line")
    for pair in pairs:
        for side in ("source", "target"):
            if not getattr(pair, side).strip():
                raise pair.place(side).error(f"empty_{side}", f"the {side} is empty; give it text, or remove the pair")
    return pairs


def _tables(paths: Iterable[Path], columns: Sequence[str], wanted: str) -> Iterator[Record]:
    """Read the records of files that have named fields, at least one of each file."""
    paths = list(paths)
    if not paths:
        raise UsageError("bad_option", f"no file is given to learn from; {wanted}")
    for path in paths:
        if not is_table(path):
            raise UsageError("bad_option", f"{path} is {'a folder' if path.is_dir() else 'plain text'}; {wanted}")
        records = read_records(path, columns)
        first = next(records, None)
        if first is None:
            raise DataError("empty_text", f"{path} holds no records; fill it, or leave it out")
        yield first
        yield from records


def _parallel(path_1: Path, path_2: Path) -> Iterator[tuple[Record, Record]]:
    """Read two text files side by side."""
    for record_1, record_2 in itertools.zip_longest(read_records(path_1), read_records(path_2)):
        alone = record_2 if record_1 is None else record_1
        if record_1 is None or record_2 is None:
            raise alone.error(
                "pairs_differ",
                f"this line has no partner: {path_2 if alone is record_1 else path_1} ends at line {alone.line - 1}. "
                "Both files must have the same lines, each with its translation",
            )
        yield record_1, record_2


def _classed_and_tagged(record: Record, tasks: Sequence[str], fields: Fields) -> LabelledText:
    """Read a text with its class, its spans, or both."""
    spans = None
    if "tag" in tasks:
        text, spans = _tagged_words(record, fields) if record.get(fields.tokens) else _marked_text(record, fields)
    else:
        text = record.text(fields.text)
    if not text.strip():
        raise record.error("empty_text", "the text is empty; give it words, or remove the record")
    pair = None if record.get(fields.text_pair) is None else record.text(fields.text_pair)
    return LabelledText(record, text, pair, _label(record, fields) if "classify" in tasks else None, spans)


def _label(record: Record, fields: Fields) -> str:
    value = record.get(fields.label)
    if value is None or value == "":
        raise record.error(
            "labels_missing", f"there is no label under {fields.label!r}; give one, or remove the record"
        )
    if type(value) not in (str, int):
        raise record.error("unknown_label", f"a label must be text or a whole number, not {clipped(value)}")
    return str(value)


def _tagged_words(record: Record, fields: Fields) -> tuple[str, tuple[Span, ...]]:
    """Join words by spaces, and turn the tags of words into spans."""
    words, tags = _words(record, fields.tokens), _words(record, fields.tags)
    if len(words) != len(tags):
        raise record.error(
            "labels_misaligned", f"{len(words)} words and {len(tags)} tags; each word needs exactly one tag"
        )
    spans: list[Span] = []
    start, before = 0, OUTSIDE
    for word, tag in zip(words, tags, strict=True):
        end = start + len(word)
        prefix, dash, label = tag.partition("-")
        if tag != OUTSIDE and not (prefix in ("B", "I") and dash and label):
            raise record.error("unknown_label", f"a tag must be O, B- or I- with a label, not {clipped(tag)}")
        if prefix == "I" and before in (f"B-{label}", f"I-{label}"):
            spans[-1] = spans[-1]._replace(end=end)
        elif tag != OUTSIDE:
            spans.append(Span(start, end, label))
        start, before = end + 1, tag
    return " ".join(words), tuple(spans)


def _words(record: Record, name: str) -> list[str]:
    value = record.get(name)
    if value is None:
        raise record.error("labels_missing", f"there is nothing under {name!r}; give a list of words, and one of tags")
    words = value.split() if isinstance(value, str) else value
    if not isinstance(words, list) or not all(
        isinstance(word, str) and word and word == word.strip() for word in words
    ):
        raise record.error("bad_record", f"{name!r} must be a list of words, without spaces around them")
    return [record._replace(values={name: word}).text(name) for word in words]


def _marked_text(record: Record, fields: Fields) -> tuple[str, tuple[Span, ...]]:
    """Check the spans of a text."""
    text, values = record.text(fields.text), record.get(fields.spans)
    if not isinstance(values, list):
        raise record.error(
            "labels_missing", f"expected words under {fields.tokens!r} or a list of spans under {fields.spans!r}"
        )
    spans: list[Span] = []
    for value in values:
        try:
            span = Span(value["start"], value["end"], value["label"])
        except (KeyError, TypeError) as error:
            raise record.error("bad_record", f"a span has start, end and label, not {clipped(value)}") from error
        if type(span.label) is not str or not span.label:
            raise record.error("labels_missing", f"a span's label must be text, not {clipped(span.label)}")
        _check_inside(record, span, text)
        spans.append(span)
    spans.sort()
    for a, b in itertools.pairwise(spans):
        if b.start < a.end:
            raise record.error(
                "spans_overlap",
                f"{a.label!r} ({a.start} to {a.end}) and {b.label!r} ({b.start} to {b.end}) overlap; a character can "
                "belong to one span only",
            )
    return text, tuple(spans)


def _check_inside(record: Record, span: Span, text: str) -> None:
    whole = type(span.start) is int and type(span.end) is int
    if not whole or not 0 <= span.start < span.end <= len(text):
        raise record.error(
            "span_outside_text",
            f"{clipped(span.label)} goes from {clipped(span.start)} to {clipped(span.end)}, and the text has the "
            f"characters 0 to {len(text)}; a span must lie inside and hold at least one",
        )
    if not text[span.start : span.end].strip():
        raise record.error("span_outside_text", f"{clipped(span.label)} holds nothing but spaces")


def _answered(record: Record, tasks: Sequence[str], fields: Fields) -> LabelledText:
    """Read a question with its context and answers."""
    question, context, values = record.text(fields.question), record.text(fields.context), record.get(fields.answers)
    if not question.strip() or not context.strip():
        raise record.error("empty_text", "the question or its context is empty; give both, or remove the record")
    try:
        found = list(zip(values["answer_start"], values["text"], strict=True))
    except (KeyError, TypeError, ValueError) as error:
        raise record.error(
            "labels_missing",
            f"expected lists 'text' and 'answer_start' of one length under {fields.answers!r}, empty without an answer",
        ) from error
    answers = []
    for start, text in found:
        if type(start) is not int or type(text) is not str:
            raise record.error("bad_record", "an answer is a text and the number of its first character")
        span = Span(start, start + len(text), "answer")
        _check_inside(record, span, context)
        if context[span.start : span.end] != text:
            raise record.error(
                "labels_misaligned",
                f"the answer {clipped(text)} does not stand at character {start} of the context, where "
                f"{clipped(context[span.start : span.end])} stands",
            )
        answers.append(span)
    return LabelledText(record, question, context, answers=tuple(answers))
