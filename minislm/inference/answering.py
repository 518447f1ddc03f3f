"""Answering: the part of a context that answers a question, in windows where the context is longer than the model's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from minislm.errors import DataError, GenerationError, UsageError
from minislm.inference.reading import encoded_texts, head_of, read
from minislm.ops.softmax import log_softmax
from minislm.text.pairs import Encoded

if TYPE_CHECKING:
    from minislm.language_model import LanguageModel


class Answer(NamedTuple):
    """A part of a context.

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
    the middle of the one before. The probabilities are over the places of all windows.

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
    .. [1] Devlin et al. (2018), "BERT", arXiv 1810.04805, section 4.2.
    """
    head = head_of(lm, "answer", "span")
    if max_tokens < 1:
        raise UsageError("bad_option", f"max_tokens must be at least 1, not {max_tokens}")
    if not isinstance(question, str) or not isinstance(context, str):
        raise DataError("unencodable_text", "the question and the context must each be one text")
    whole = encoded_texts(lm, [question], [context])[0]
    prefix = whole.types.index(1)
    windows = _windows(whole, prefix, lm.model.config.context)
    scores = [rows[prefix:-1] for rows in read(lm, windows, head.name)]
    places = [window.offsets[prefix:-1] for window in windows]
    best, start, end = max(
        _best(log_p_T2, found, max_tokens) for log_p_T2, found in zip(_log_probabilities(scores), places, strict=True)
    )
    return Answer(context[start:end], start, end, math.exp(best))


def _windows(whole: Encoded, prefix: int, most: int) -> list[Encoded]:
    """Divide what is longer than the model's context, so that each part begins with the question."""
    n_tokens = len(whole.ids)
    if n_tokens <= most:
        return [whole]
    room = most - prefix - 1  # a special token ends each window
    if room < 2:
        raise GenerationError(
            "context_length_exceeded",
            f"the question has {prefix} tokens, special ones included, and the model's context {most}; shorten the "
            f"question to at most {most - 3}",
        )
    windows = []
    for first in range(prefix, n_tokens - 1, room // 2):
        last = min(first + room, n_tokens - 1)
        windows.append(Encoded(*([*field[:prefix], *field[first:last], field[-1]] for field in whole)))
        if last == n_tokens - 1:
            break
    return windows


def _log_probabilities(scores: list[np.ndarray]) -> list[np.ndarray]:
    """Turn each window's scores of start and end into log-probabilities over the places of all windows."""
    log_p_2T = log_softmax(np.concatenate(scores).T)
    return np.split(log_p_2T.T, np.cumsum([len(rows) for rows in scores])[:-1])


def _best(log_p_T2: np.ndarray, offsets: list[tuple[int, int]], max_tokens: int) -> tuple[float, int, int]:
    """Return the likeliest answer of a window: its log-probability, and the characters where it starts and ends."""
    spelled_T = np.array([start < end for start, end in offsets])
    first_T, last_T = np.where(spelled_T[:, None], log_p_T2, -np.inf).T
    best = (-np.inf, 0, 0)
    for more in range(min(max_tokens, len(offsets))):
        both = first_T[: len(offsets) - more] + last_T[more:]
        place = int(both.argmax())
        if both[place] > best[0]:
            best = (float(both[place]), offsets[place][0], offsets[place + more][1])
    return best
