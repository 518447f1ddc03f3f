"""Tagging: the labelled parts of texts, read from the likeliest sequence of BIO tags that makes sense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple
from unicodedata import east_asian_width

import numpy as np

from minislm.dispatch import ops
from minislm.errors import UnsupportedError
from minislm.inference.reading import encoded_texts, head_of, read
from minislm.text.pairs import Encoded
from minislm.text.spans import OUTSIDE, spans_of

if TYPE_CHECKING:
    from minislm.language_model import LanguageModel


class Entity(NamedTuple):
    """A labelled part of a text.

    Parameters
    ----------
    start, end : int
        Its characters, from `start` to before `end`.
    label : str
        What it is.
    text : str
        The part itself.
    score : float
        Mean probability of its tokens' tags.
    """

    start: int
    end: int
    label: str
    text: str
    score: float


def tag(lm: LanguageModel, texts: Sequence[str], *, head: str | None = None, cut: bool = False) -> list[list[Entity]]:
    """Find the labelled parts of texts.

    Parameters
    ----------
    lm : LanguageModel
        An encoder with a token head whose labels are BIO tags.
    texts : sequence of str
        Of any lengths that the model can read.
    head : str, optional
        The head's name, where there are several.
    cut : bool
        Whether a text that is longer than the model's context loses its end. False: it is an error.

    Returns
    -------
    list of list of Entity
        The parts of each text, in order. A part holds whole words.

    Raises
    ------
    UnsupportedError
        Codes ``not_an_encoder``, ``head_missing``, ``labels_not_bio`` and ``no_special_tokens``.
    UsageError
        Codes ``ambiguous_head`` and ``bad_texts``.
    DataError
        Codes ``empty_text`` and ``unencodable_text``.
    GenerationError
        Code ``context_length_exceeded``.
    """
    chosen = head_of(lm, "tag", "token", head)
    if strange := [label for label in chosen.labels if label != OUTSIDE and label[:2] not in ("B-", "I-")]:
        raise UnsupportedError(
            "labels_not_bio", f"tag reads spans from O, B- and I- labels; head {chosen.name!r} has {strange[0]!r}"
        )
    encoded = encoded_texts(lm, texts, cut=cut)
    logits = read(lm, encoded, chosen.name)
    return [_entities(*found, chosen.labels) for found in zip(texts, encoded, logits, strict=True)]


def likeliest_tags(log_p_TC: np.ndarray, labels: Sequence[str], inside_T: np.ndarray) -> np.ndarray:
    """Find the sequence of tags with the highest product of probabilities among those that make sense.

    Parameters
    ----------
    log_p_TC : ndarray, (T, C)
        Logarithms of the probability of each tag for each token.
    labels : sequence of str
        The C tags: ``O``, and ``B-`` and ``I-`` with a label.
    inside_T : ndarray of bool, (T,)
        Whether a token goes on with the word of the token before it.

    Returns
    -------
    ndarray of int64, (T,)
        The number of each token's tag. ``I-`` stands only after ``B-`` or ``I-`` of the same label, and all tokens of
        a word lie in one span, or none does.

    Notes
    -----
    Dynamic programming over the tokens (Viterbi 1967, "Error bounds for convolutional codes", IEEE Transactions on
    Information Theory 13), T C additions in float64, because a tag follows either any other one or only two.

    Examples
    --------
    >>> log_p_TC = np.log([[0.1, 0.5, 0.4], [0.6, 0.3, 0.1], [0.4, 0.1, 0.5]])
    >>> tags = ["O", "B-city", "I-city"]
    >>> [tags[i] for i in likeliest_tags(log_p_TC, tags, np.array([False, False, False]))]
    ['B-city', 'O', 'O']
    >>> [tags[i] for i in likeliest_tags(log_p_TC, tags, np.array([False, True, False]))]
    ['B-city', 'I-city', 'I-city']
    """
    numbers = {label: i for i, label in enumerate(labels)}
    own_C = np.arange(len(labels))
    begins_C = np.array([label.startswith("B-") for label in labels])
    goes_on_C = np.array([label.startswith("I-") for label in labels])
    begun_C = np.array([numbers.get(f"B-{label[2:]}", i) if goes_on_C[i] else i for i, label in enumerate(labels)])
    best_C = np.where(goes_on_C, -np.inf, log_p_TC[0].astype(np.float64))
    came_TC = np.zeros(log_p_TC.shape, np.int64)
    for t in range(1, len(log_p_TC)):
        same_C = np.where(best_C[begun_C] > best_C, begun_C, own_C)  # an I- goes on with its B- or with itself
        came_TC[t] = same_C if inside_T[t] else np.where(goes_on_C, same_C, best_C.argmax())
        impossible_C = begins_C & inside_T[t]
        best_C = np.where(impossible_C, -np.inf, best_C[came_TC[t]] + log_p_TC[t])
    tags_T = np.zeros(len(log_p_TC), np.int64)
    tags_T[-1] = best_C.argmax()
    for t in range(len(log_p_TC) - 1, 0, -1):
        tags_T[t - 1] = came_TC[t, tags_T[t]]
    return tags_T


def _entities(text: str, encoded: Encoded, logits: np.ndarray, labels: Sequence[str]) -> list[Entity]:
    """Read spans from the likeliest tags of the tokens that have characters."""
    starts_T, ends_T = np.array(encoded.offsets).T
    real_T = np.flatnonzero(starts_T < ends_T)
    if not real_T.size:
        return []
    starts_T, ends_T = starts_T[real_T], ends_T[real_T]
    p_TC = ops.softmax(logits[real_T])[0]
    inside_T = np.array([False, *(_same_word(text, *place) for place in zip(starts_T[1:], ends_T[:-1], strict=True))])
    tags_T = likeliest_tags(np.log(np.maximum(p_TC, np.finfo(p_TC.dtype).tiny)), labels, inside_T)
    scores_T = p_TC[np.arange(len(tags_T)), tags_T]
    found = []
    offsets = list(zip(starts_T.tolist(), ends_T.tolist(), strict=True))
    for start, end, label in spans_of([labels[number] for number in tags_T], offsets):
        part_T = (starts_T >= start) & (ends_T <= end)
        found.append(Entity(start, end, label, text[start:end], float(scores_T[part_T].mean())))
    return found


def _same_word(text: str, start: int, end_before: int) -> bool:
    """Tell whether a token goes on with the word that the token before it ends in the middle of.

    Chinese and Japanese, whose letters are wide, are written without spaces: there, each token may be a word.
    """
    letters = text[start - 1 : start + 1]
    return start == end_before and letters.isalnum() and not any(east_asian_width(letter) == "W" for letter in letters)
