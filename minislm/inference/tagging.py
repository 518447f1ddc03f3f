"""Tagging: the labelled parts of texts, read from the likeliest sequence of BIO tags that makes sense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple
from unicodedata import east_asian_width

import numpy as np

from minislm.dispatch import ops
from minislm.errors import UnsupportedError
from minislm.inference.passes import gathered
from minislm.inference.reading import TOKENS, encoded_texts, head_of, read
from minislm.text.pairs import Encoded
from minislm.text.spans import BIO, OUTSIDE, spans_of

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
        An encoder with a token head. Its labels are BIO tags; or each is of a whole word, such as a part of speech.
    texts : sequence of str
        Of any lengths that the model can read.
    head : str, optional
        The head's name, where there are several.
    cut : bool
        Whether a text that is longer than the model's context loses its end. False: it is an error.

    Returns
    -------
    list of list of Entity
        The parts of each text, in order. A part holds whole words; where labels are no BIO tags, one word, and words
        with the label ``O`` are left out.

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
    strange = [label for label in chosen.labels if label != OUTSIDE and label[:2] not in BIO]
    if strange and len(strange) < len(chosen.labels) - (OUTSIDE in chosen.labels):
        raise UnsupportedError(
            "labels_not_bio",
            f"tag reads spans from O, B- and I- labels, or words from labels without these; head {chosen.name!r} has "
            f"both, such as {strange[0]!r}",
        )
    encoded = encoded_texts(lm, texts, cut=cut)
    tokens = list(map(_tokens, texts, encoded, read(lm, encoded, chosen.name)))
    found: list[list[Entity]] = [[] for _ in texts]
    for group in gathered([len(own.p_TC) for own in tokens], TOKENS):
        tags = likeliest_tags([tokens[i].p_TC for i in group], chosen.labels, [tokens[i].inside_T for i in group])
        for i, tags_T in zip(group, tags, strict=True):
            found[i] = _entities(texts[i], tokens[i], tags_T, chosen.labels)
    return found


def likeliest_tags(p: Sequence[np.ndarray], labels: Sequence[str], inside: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Find, for each text, the tags with the highest product of probabilities among those that make sense.

    Parameters
    ----------
    p : sequence of ndarray, (T, C)
        For each text, the probability of each tag for each token.
    labels : sequence of str
        The C tags: ``O``, and ``B-`` and ``I-`` with a label; others are of whole words, as ``O`` is.
    inside : sequence of ndarray of bool, (T,)
        For each text, whether a token goes on with the word of the token before it.

    Returns
    -------
    list of ndarray of int64, (T,)
        For each text, the number of each token's tag. ``I-`` stands only after ``B-`` or ``I-`` of the same label, and
        all tokens of a word lie in one span, or none does.

    Notes
    -----
    Dynamic programming over the tokens (Viterbi 1967, "Error bounds for convolutional codes", IEEE Transactions on
    Information Theory 13), T C additions of logarithms in float64, because a tag follows either any other one or only
    two. All texts take each step together; one that has ended stays where it is.

    Examples
    --------
    >>> p_TC = np.array([[0.1, 0.5, 0.4], [0.6, 0.3, 0.1], [0.4, 0.1, 0.5]])
    >>> tags = ["O", "B-city", "I-city"]
    >>> words, parts = np.array([False, False, False]), np.array([False, True, False])
    >>> [[tags[i] for i in found] for found in likeliest_tags([p_TC, p_TC], tags, [words, parts])]
    [['B-city', 'O', 'O'], ['B-city', 'I-city', 'I-city']]
    """
    numbers = {label: i for i, label in enumerate(labels)}
    own_C = np.arange(len(labels))
    begins_C = np.array([label.startswith("B-") for label in labels])
    goes_on_C = np.array([label.startswith("I-") for label in labels])
    begun_C = np.array([numbers.get(f"B-{label[2:]}", i) if goes_on_C[i] else i for i, label in enumerate(labels)])
    lengths_B = np.array(list(map(len, p)))
    log_p_BTC = np.zeros((len(p), max(1, lengths_B.max(initial=0)), len(labels)))
    inside_BT = np.zeros(log_p_BTC.shape[:2], bool)
    for b, n in enumerate(lengths_B):
        log_p_BTC[b, :n] = np.log(np.maximum(p[b], np.finfo(p[b].dtype).tiny))
        inside_BT[b, :n] = inside[b]
    best_BC = np.where(goes_on_C, -np.inf, log_p_BTC[:, 0])
    came_BTC = np.broadcast_to(own_C, log_p_BTC.shape).copy()
    for t in range(1, log_p_BTC.shape[1]):
        same_BC = np.where(best_BC[:, begun_C] > best_BC, begun_C, own_C)  # an I- goes on with its B- or with itself
        any_BC = np.where(goes_on_C, same_BC, best_BC.argmax(axis=1)[:, None])
        from_BC = np.where(inside_BT[:, t, None], same_BC, any_BC)
        new_BC = np.take_along_axis(best_BC, from_BC, axis=1) + log_p_BTC[:, t]
        new_BC[inside_BT[:, t, None] & begins_C] = -np.inf
        here_B = t < lengths_B
        best_BC[here_B], came_BTC[here_B, t] = new_BC[here_B], from_BC[here_B]
    tags_BT: np.ndarray = np.empty(inside_BT.shape, np.int64)
    tags_BT[:, -1] = best_BC.argmax(axis=1)
    for t in range(tags_BT.shape[1] - 1, 0, -1):
        tags_BT[:, t - 1] = np.take_along_axis(came_BTC[:, t], tags_BT[:, t, None], axis=1)[:, 0]
    return [tags_T[:n] for tags_T, n in zip(tags_BT, lengths_B, strict=True)]


class _Tokens(NamedTuple):
    """The tokens of a text that have characters: where they stand, and the probability of each tag."""

    starts_T: np.ndarray
    ends_T: np.ndarray
    inside_T: np.ndarray
    p_TC: np.ndarray


def _tokens(text: str, encoded: Encoded, logits: np.ndarray) -> _Tokens:
    """Leave out special tokens."""
    starts_T, ends_T = np.array(encoded.offsets).T
    real_T = starts_T < ends_T
    starts, ends = starts_T[real_T], ends_T[real_T]
    before = [-1, *ends.tolist()]  # nothing before the first one
    inside = [_same_word(text, start, end) for start, end in zip(starts.tolist(), before, strict=False)]
    return _Tokens(starts, ends, np.array(inside, bool), ops.softmax(logits[real_T])[0])


def _entities(text: str, tokens: _Tokens, tags_T: np.ndarray, labels: Sequence[str]) -> list[Entity]:
    """Read the spans that the tags of a text tell of."""
    starts_T, ends_T, inside_T, p_TC = tokens
    scores_T = p_TC[np.arange(len(tags_T)), tags_T]
    found = []
    offsets = list(zip(starts_T.tolist(), ends_T.tolist(), strict=True))
    tags = [labels[number] for number in tags_T]
    if not any(label[:2] in BIO for label in labels):  # each is of a word
        begun = [BIO[inside] for inside in inside_T.tolist()]
        tags = [tag if tag == OUTSIDE else start + tag for tag, start in zip(tags, begun, strict=True)]
    for start, end, label in spans_of(tags, offsets):
        part_T = (starts_T >= start) & (ends_T <= end)
        found.append(Entity(start, end, label, text[start:end], float(scores_T[part_T].mean())))
    return found


def _same_word(text: str, start: int, end_before: int) -> bool:
    """Tell whether a token goes on with the word that the token before it ends in the middle of.

    Chinese and Japanese, whose letters are wide, are written without spaces: there, each token may be a word.
    """
    letters = text[start - 1 : start + 1]
    return start == end_before and letters.isalnum() and not any(east_asian_width(letter) == "W" for letter in letters)
