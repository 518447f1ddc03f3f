"""Answering: the part of a context that answers a question, in windows where the context is longer than the model's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from minislm.errors import GenerationError, UsageError
from minislm.inference.reading import encoded_texts, head_of, read
from minislm.ops.softmax import log_softmax
from minislm.text.pairs import Encoded

if TYPE_CHECKING:
    from minislm.language_model import LanguageModel


class Answer(NamedTuple):
    """A part of a context; empty where the context seems to hold no answer.

    Parameters
    ----------
    text : str
        The part itself.
    start, end : int
        Its characters in the context, from `start` to before `end`.
    score : float
        The probability that it starts there times the probability that it ends there.
    """

    text: str
    start: int
    end: int
    score: float


def answer(lm: LanguageModel, question: str, context: str, *, max_tokens: int = 30) -> Answer:
    """Find the part of a context that answers a question.

    A context that does not fit into the model beside the question is read in windows as long as fit, each beginning in
    the middle of the one before. Probabilities are over the places of all windows, and of the first position of each,
    which stands for no answer: that is the result where even the window that gives it least prefers it to every part.

    Parameters
    ----------
    lm : LanguageModel
        An encoder with a span head.
    question : str
        The question; with its special tokens it must leave room for two tokens of the context.
    context : str
        Where the answer stands, of any length.
    max_tokens : int
        Longest answer, in tokens.

    Returns
    -------
    Answer
        The likeliest part that starts before it ends.

    Raises
    ------
    UnsupportedError
        Codes ``not_an_encoder``, ``head_missing`` and ``no_special_tokens``.
    UsageError
        Code ``bad_option``: `max_tokens` below 1.
    DataError
        Codes ``empty_text`` and ``unencodable_text``.
    GenerationError
        Code ``context_length_exceeded``: the question is too long.

    References
    ----------
    .. [1] Devlin et al. (2018), "BERT", arXiv 1810.04805, sections 4.2 and 4.3.
    """
    return answers(lm, [question], [context], max_tokens=max_tokens)[0]


def answers(
    lm: LanguageModel, questions: Sequence[str], contexts: Sequence[str], *, max_tokens: int = 30
) -> list[Answer]:
    """Find the part of each context that answers its question: `answer` for many.

    Parameters
    ----------
    lm : LanguageModel
        An encoder with a span head.
    questions, contexts : sequence of str
        As many of both.
    max_tokens : int
        Longest answer, in tokens.

    Returns
    -------
    list of Answer
        One for each question.

    Raises
    ------
    UnsupportedError, UsageError, DataError, GenerationError
        As `answer`.
    """
    head = head_of(lm, "answer", "span")
    if max_tokens < 1:
        raise UsageError("bad_option", f"max_tokens must be at least 1, not {max_tokens}")
    windows = [
        _windows(number, whole, lm.model.config.context)
        for number, whole in enumerate(encoded_texts(lm, questions, contexts, names=("question", "context")), start=1)
    ]
    scores = iter(read(lm, [window for own in windows for window in own], head.name))
    return [
        _likeliest(context, own, [next(scores) for _ in own], max_tokens)
        for context, own in zip(contexts, windows, strict=True)
    ]


def _windows(number: int, whole: Encoded, most: int) -> list[Encoded]:
    """Divide what is longer than the model's context, so that each part begins with the question."""
    n_tokens, prefix = len(whole.ids), whole.types.index(1)
    if n_tokens <= most:
        return [whole]
    room = most - prefix - 1  # a special token ends each window
    if room < 2:
        raise GenerationError(
            "context_length_exceeded",
            f"question {number} has {prefix} tokens, special ones included, and the model's context {most}; shorten it "
            f"to at most {most - 3}",
        )
    windows = []
    for first in range(prefix, n_tokens - 1, room // 2):
        last = min(first + room, n_tokens - 1)
        windows.append(Encoded(*([*field[:prefix], *field[first:last], field[-1]] for field in whole)))
        if last == n_tokens - 1:
            break
    return windows


def _likeliest(context: str, windows: list[Encoded], scores: list[np.ndarray], max_tokens: int) -> Answer:
    """Compare the best parts of all windows, and no answer."""
    prefix = windows[0].types.index(1)
    places = [[0, *range(prefix, len(window.ids) - 1)] for window in windows]
    kept = [rows[place] for rows, place in zip(scores, places, strict=True)]
    log_p = np.split(log_softmax(np.concatenate(kept).T).T, np.cumsum([len(rows) for rows in kept])[:-1])
    none = min(float(rows[0].sum()) for rows in log_p)
    score, start, end = max(
        _best_part(rows[1:], window.offsets[prefix:-1], max_tokens) for rows, window in zip(log_p, windows, strict=True)
    )
    if score <= none:
        return Answer("", 0, 0, math.exp(none))
    return Answer(context[start:end], start, end, math.exp(score))


def _best_part(log_p: np.ndarray, offsets: list[tuple[int, int]], max_tokens: int) -> tuple[float, int, int]:
    """Return the likeliest part of a window: its log-probability, and the characters where it starts and ends.

    `log_p` holds for each token the log-probabilities that an answer starts and that it ends there.
    """
    spelled_T = np.array([start < end for start, end in offsets])
    first_T, last_T = np.where(spelled_T[:, None], log_p, -np.inf).T
    best = (-np.inf, 0, 0)
    for more in range(min(max_tokens, len(offsets))):
        both = first_T[: len(offsets) - more] + last_T[more:]
        place = int(both.argmax())
        if both[place] > best[0]:
            best = (float(both[place]), offsets[place][0], offsets[place + more][1])
    return best
