"""What an encoder reads: one text or two between special tokens, with the place of every token in its text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

Spans = tuple[list[int], list[tuple[int, int]]]  # token ids, and where each begins and ends in its text


class Encoded(NamedTuple):
    """An encoder's input.

    Parameters
    ----------
    ids : list of int
        Token ids, special ones included.
    types : list of int
        0 for tokens of the first text, the special ones before and after it among them; 1 for those of the second.
    offsets : list of tuple of int
        Where each token begins and ends in its text, in characters, without white space around it; (0, 0) for special
        tokens.
    """

    ids: list[int]
    types: list[int]
    offsets: list[tuple[int, int]]


def spans(ids: list[int], offsets: Iterable[tuple[int, int]], text: str) -> Spans:
    """Cut white space off the places of tokens.

    Parameters
    ----------
    ids : list of int
        The tokens of `text`, no special one among them.
    offsets : iterable of tuple of int
        The characters that each stands for. Byte-level tokens begin with the space before a word.
    text : str
        The text.

    Returns
    -------
    ids : list of int
        As they came.
    offsets : list of tuple of int
        Places without white space around them.
    """
    return ids, [_trimmed(text, start, end) for start, end in offsets]


def joined(first: Spans, second: Spans | None, cls_id: int, sep_id: int, max_length: int | None) -> Encoded:
    """Put one text or two between special tokens.

    Parameters
    ----------
    first : tuple
        What `spans` returns.
    second : tuple, optional
        The same for the second text; None: there is none.
    cls_id, sep_id : int
        The special tokens: the first one, and the one that ends each text.
    max_length : int or None
        Most tokens of the result; the longer text loses tokens at its end.

    Returns
    -------
    Encoded
        The input.
    """
    (ids_1, offsets_1), (ids_2, offsets_2) = first, second or ([], [])
    n_1, n_2 = len(ids_1), len(ids_2)
    if max_length is not None:
        room = max_length - (2 if second is None else 3)
        n_2 = min(n_2, max(room // 2, room - n_1))
        n_1 = min(n_1, room - n_2)
    ids, offsets = [cls_id, *ids_1[:n_1], sep_id], [(0, 0), *offsets_1[:n_1], (0, 0)]
    types = [0] * len(ids)
    if second is not None:
        ids += [*ids_2[:n_2], sep_id]
        offsets += [*offsets_2[:n_2], (0, 0)]
        types += [1] * (n_2 + 1)
    return Encoded(ids, types, offsets)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end
