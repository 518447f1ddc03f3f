"""How well a model predicts a text, and how closely it follows another model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minislm.dispatch import ops
from minislm.errors import DataError, UnsupportedError
from minislm.models.base import Model
from minislm.models.encoder import Encoder
from minislm.models.transformer import Transformer

if TYPE_CHECKING:
    from minislm.language_model import LanguageModel


@dataclass(frozen=True)
class Likelihood:
    """What a model gives a text.

    Parameters
    ----------
    n_tokens : int
        Tokens predicted: all but the first.
    nll_nats : float
        Mean negative log-likelihood of a token, in nats.
    n_bytes : int
        UTF-8 bytes of the predicted text; 0 where unknown.
    """

    n_tokens: int
    nll_nats: float
    n_bytes: int = 0

    @property
    def perplexity(self) -> float:
        """``exp(nll_nats)``, a function of the tokenizer too."""
        return math.exp(self.nll_nats)

    @property
    def bits_per_byte(self) -> float:
        """Bits to code a byte of the text: comparable between tokenizers. Not a number where the bytes are unknown."""
        return self.nll_nats * self.n_tokens / (math.log(2.0) * self.n_bytes) if self.n_bytes else math.nan


@dataclass(frozen=True)
class Agreement:
    """How closely a model follows a teacher on a text.

    Parameters
    ----------
    kl_nats : float
        Mean Kullback-Leibler divergence of the model from the teacher over positions, in nats.
    top_1 : float
        Fraction of the positions where both rank the same token first.
    """

    kl_nats: float
    top_1: float


def likelihood(
    model: Model,
    ids: np.ndarray,
    *,
    n_bytes: int = 0,
    batch_size: int = 8,
    on_batch: Callable[[int, int], None] | None = None,
) -> Likelihood:
    """Measure how well a model predicts a text, in windows of its whole context laid end to end.

    Each token but the first is predicted once; the tokens before it in its window are what the model sees, so those at
    the start of a window are predicted from little.

    Parameters
    ----------
    model : Model
        A causal model.
    ids : ndarray of int, (N,)
        The text's tokens; at least 2.
    n_bytes : int
        UTF-8 bytes of the text without its first token, for `Likelihood.bits_per_byte`.
    batch_size : int
        Windows in a batch; changes nothing but the time.
    on_batch : callable, optional
        Called with (tokens done, tokens in all).

    Returns
    -------
    Likelihood
        The mean over all predicted tokens.

    Raises
    ------
    DataError
        Code ``text_too_short``: fewer than 2 tokens.
    UnsupportedError
        Code ``not_a_decoder``.
    """
    require_decoder(model)
    total, done = 0.0, 0
    for inputs_BT, targets_BT in windows(ids, model.config.context, batch_size):
        logits_BTV = model.forward(inputs_BT)
        loss, _ = ops.cross_entropy(logits_BTV.reshape(-1, logits_BTV.shape[-1]), targets_BT.reshape(-1))
        total += loss * targets_BT.size
        done += targets_BT.size
        if on_batch:
            on_batch(done, len(ids) - 1)
    return Likelihood(done, total / done, n_bytes)


def evaluate(lm: LanguageModel, documents: Sequence[str], *, max_tokens: int = 0) -> Likelihood:
    """Measure how well a language model predicts documents.

    Parameters
    ----------
    lm : LanguageModel
        What to judge.
    documents : sequence of str
        Texts that it was not trained on.
    max_tokens : int
        Judge on so many tokens at most; 0: all.

    Returns
    -------
    Likelihood
        The mean over all predicted tokens, with the bytes of their text.

    Raises
    ------
    DataError
        Code ``text_too_short``: fewer than 2 tokens.
    UnsupportedError
        Code ``not_a_decoder``.
    """
    ids = lm.tokenizer.encode_documents(documents)[: max_tokens or None]
    return likelihood(lm.model, ids, n_bytes=text_bytes(lm, ids))


def text_bytes(lm: LanguageModel, ids: np.ndarray) -> int:
    """Count the bytes of the text that a model predicts when it is judged on tokens.

    Parameters
    ----------
    lm : LanguageModel
        Whose tokenizer.
    ids : ndarray of int, (N,)
        Tokens; the first is not predicted.

    Returns
    -------
    int
        UTF-8 bytes; the end of a text has none.
    """
    return len(lm.tokenizer.decode(ids[1:].tolist()).encode())


def agreement(model: Model, teacher: Model, ids: np.ndarray, *, batch_size: int = 8) -> Agreement:
    """Measure how closely a model follows a teacher, over the same windows as `likelihood`.

    Parameters
    ----------
    model, teacher : Model
        Causal models with the same vocabulary; the shorter context counts.
    ids : ndarray of int, (N,)
        The text's tokens; at least 2.
    batch_size : int
        Windows in a batch; changes nothing but the time.

    Returns
    -------
    Agreement
        Means over all positions.

    Raises
    ------
    DataError
        Code ``text_too_short``: fewer than 2 tokens. Code ``vocabularies_differ``: logits of different width.
    UnsupportedError
        Code ``not_a_decoder``.
    """
    for each in (model, teacher):
        require_decoder(each)
    if model.config.vocab_size != teacher.config.vocab_size:
        raise DataError(
            "vocabularies_differ",
            f"the model has {model.config.vocab_size} tokens, the teacher {teacher.config.vocab_size}; "
            "only models with one tokenizer can be compared",
        )
    kl, same, done = 0.0, 0, 0
    context = min(model.config.context, teacher.config.context)
    for inputs_BT, _ in windows(ids, context, batch_size):
        own_NV = model.forward(inputs_BT).reshape(inputs_BT.size, -1)
        teacher_NV = teacher.forward(inputs_BT).reshape(inputs_BT.size, -1)
        divergence, _ = ops.kl_divergence(own_NV, teacher_NV)
        kl += divergence * inputs_BT.size
        same += int((own_NV.argmax(axis=1) == teacher_NV.argmax(axis=1)).sum())
        done += inputs_BT.size
    return Agreement(kl / done, same / done)


def windows(ids: np.ndarray, context: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (inputs, targets), (B, T) each, so that every token but the first is a target once.

    Parameters
    ----------
    ids : ndarray of int, (N,)
        At least 2 tokens.
    context : int
        Length of a window, in tokens.
    batch_size : int
        Windows in a batch; the last window, shorter as a rule, comes alone.

    Yields
    ------
    tuple of ndarray
        Inputs and the tokens that follow them.

    Raises
    ------
    DataError
        Code ``text_too_short``: fewer than 2 tokens.
    """
    n_targets = len(ids) - 1
    if n_targets < 1:
        raise DataError("text_too_short", f"a text of at least 2 tokens is needed to predict one; this has {len(ids)}")
    n_whole = n_targets // context
    for start in range(0, n_whole, batch_size):
        rows = np.arange(start, min(start + batch_size, n_whole))
        at_BT = rows[:, None] * context + np.arange(context)
        yield ids[at_BT], ids[at_BT + 1]
    if n_targets % context:
        tail = np.arange(n_whole * context, n_targets)[None]
        yield ids[tail], ids[tail + 1]


def require_decoder(model: Model) -> None:
    """Refuse models that do not predict a text by itself.

    Parameters
    ----------
    model : Model
        Any.

    Raises
    ------
    UnsupportedError
        Code ``not_a_decoder``: an encoder or an encoder-decoder.
    """
    if isinstance(model, Encoder | Transformer):
        raise UnsupportedError(
            "not_a_decoder",
            f"a model of type {model.config.type!r} predicts no text by itself; judge it on a task, with "
            "evaluation.labelled or `minislm eval --task`",
        )
