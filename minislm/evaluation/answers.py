"""How good answers to questions are: exact match and F1 of words, as SQuAD counts them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from minislm.evaluation.spans import require_aligned

_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class AnswerScores:
    """Means over all questions, from 0 to 1.

    Parameters
    ----------
    exact_match : float
        Part of the answers that equal a right one after `normalized_answer`.
    f1 : float
        Mean agreement of words with the right answer that is nearest.
    """

    exact_match: float
    f1: float


def answer_scores(true: Sequence[Sequence[str]], predicted: Sequence[str]) -> AnswerScores:
    """Compare answers with the right ones.

    Parameters
    ----------
    true : sequence of sequences of str
        The right answers to each question; none where it has no answer, which an empty prediction then meets.
    predicted : sequence of str
        One answer to each.

    Returns
    -------
    AnswerScores
        Exact match and F1.

    Raises
    ------
    DataError
        Code ``labels_misaligned`` or ``empty_text``.

    References
    ----------
    .. [1] Rajpurkar, Zhang, Lopyrev, Liang (2016), "SQuAD", arXiv 1606.05250, section 6.1; and its evaluation script.

    Examples
    --------
    >>> answer_scores([["the red house"], ["1 May"]], ["A red house!", "2 May"])
    AnswerScores(exact_match=0.5, f1=0.75)
    """
    require_aligned(true, predicted)
    exact = f1 = 0.0
    for right, given in zip(true, predicted, strict=True):
        words = normalized_answer(given)
        answers = [normalized_answer(text) for text in right] or [[]]
        exact += any(words == answer for answer in answers)
        f1 += max(_f1(words, answer) for answer in answers)
    return AnswerScores(exact / len(true), f1 / len(true))


def normalized_answer(text: str) -> list[str]:
    """Return the words that count: small letters, without punctuation and articles.

    Parameters
    ----------
    text : str
        An answer in English; in other languages no articles are left out.

    Returns
    -------
    list of str
        Words.

    Examples
    --------
    >>> normalized_answer("The  U.S. Navy")
    ['us', 'navy']
    """
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split()


def _f1(given: list[str], right: list[str]) -> float:
    """Harmonic mean of the parts of both answers' words that they share; both empty agree."""
    if not given or not right:
        return float(given == right)
    return 2 * (Counter(given) & Counter(right)).total() / (len(given) + len(right))
