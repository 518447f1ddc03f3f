"""Spans of a text and BIO tags of its tokens, turned into each other.

The first token of a span has the tag ``B-`` and its label, the others ``I-`` and the label, and tokens outside of spans
``O`` (Ramshaw and Marcus 1995, arXiv cmp-lg/9505040, with each span begun by ``B-``: IOB2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

OUTSIDE = "O"
BIO = ("B-", "I-")


class Span(NamedTuple):
    """A part of a text.

    Parameters
    ----------
    start, end : int
        Its characters, from `start` to before `end`.
    label : str
        What it is.
    """

    start: int
    end: int
    label: str


def bio_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the tags for some labels of spans.

    Parameters
    ----------
    labels : iterable of str
        In any order; repeated ones count once.

    Returns
    -------
    tuple of str
        ``O`` first, then two for each label in alphabetical order.

    Examples
    --------
    >>> bio_labels(["time", "city", "time"])
    ('O', 'B-city', 'I-city', 'B-time', 'I-time')
    """
    return (OUTSIDE, *(f"{prefix}-{label}" for label in sorted(set(labels)) for prefix in "BI"))


def tags_of(spans: Sequence[Span], offsets: Sequence[tuple[int, int]]) -> list[str | None]:
    """Give each token its tag.

    Parameters
    ----------
    spans : sequence of Span
        In order, without overlap.
    offsets : sequence of tuple of int
        Where each token begins and ends, in order.

    Returns
    -------
    list of str or None
        One for each token. A token that reaches into a span belongs to it; if it reaches into two, to the first. None:
        the token has no characters, as special tokens have none.

    Examples
    --------
    >>> tags_of([Span(5, 13, "city")], [(0, 0), (0, 4), (5, 8), (9, 13), (0, 0)])
    [None, 'O', 'B-city', 'I-city', None]
    """
    tags: list[str | None] = []
    place, begun = 0, False
    for start, end in offsets:
        if start == end:
            tags.append(None)
            continue
        while place < len(spans) and spans[place].end <= start:
            place, begun = place + 1, False
        if place < len(spans) and spans[place].start < end:
            tags.append(f"{'I' if begun else 'B'}-{spans[place].label}")
            begun = True
        else:
            tags.append(OUTSIDE)
    return tags


def spans_of(tags: Iterable[str | None], offsets: Iterable[tuple[int, int]]) -> list[Span]:
    """Read the spans that tags tell of, in the way in which they are counted for F1.

    Parameters
    ----------
    tags : iterable of str or None
        One for each token; None: the token is passed over.
    offsets : iterable of tuple of int
        Where each token begins and ends.

    Returns
    -------
    list of Span
        In order. ``I-`` goes on with a span of its label, and begins one where there is none.

    Examples
    --------
    >>> spans_of(["O", "B-city", "I-city", "I-time"], [(0, 4), (5, 8), (9, 13), (14, 18)])
    [Span(start=5, end=13, label='city'), Span(start=14, end=18, label='time')]
    """
    found: list[Span] = []
    open_label: str | None = None
    for tag, (start, end) in zip(tags, offsets, strict=True):
        if tag is None or start == end:
            continue
        prefix, _, label = tag.partition("-")
        if tag == OUTSIDE:
            open_label = None
        elif prefix == "I" and label == open_label:
            found[-1] = found[-1]._replace(end=end)
        else:
            found.append(Span(start, end, label))
            open_label = label
    return found
