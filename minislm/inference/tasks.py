"""Tasks of encoders: classes, fillings and vectors of texts. Each function is a verb of `LanguageModel`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from minislm.dispatch import ops
from minislm.errors import DataError, UnsupportedError, UsageError
from minislm.inference.reading import encoded_texts, encoder_of, head_of, read
from minislm.text.pairs import Encoded
from minislm.text.tokenizer_file import MASK

if TYPE_CHECKING:
    from minislm.language_model import LanguageModel


class Classification(NamedTuple):
    """What class a text has.

    Parameters
    ----------
    label : str
        The class with the highest score.
    score : float
        Its probability; of a head for regression, the number that it found.
    scores : dict of str to float
        That of every class. Those of a head of the problem ``multi_label`` do not sum to 1: each tells of a class by
        itself, and a text is of all those of at least a half.
    """

    label: str
    score: float
    scores: dict[str, float]


class Filling(NamedTuple):
    """A token that may stand in place of a mask.

    Parameters
    ----------
    text : str
        What it spells; a special token its name.
    id : int
        Its number.
    score : float
        Its probability.
    """

    text: str
    id: int
    score: float


def classify(
    lm: LanguageModel,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    head: str | None = None,
    cut: bool = False,
) -> list[Classification]:
    """Tell the class of texts.

    Parameters
    ----------
    lm : LanguageModel
        An encoder with a sequence head.
    texts : sequence of str
        Of any lengths that the model can read.
    pairs : sequence of str, optional
        The second text of each, for a head that judges pairs.
    head : str, optional
        The head's name, where there are several.
    cut : bool
        Whether a text that is longer than the model's context loses its end. False: it is an error.

    Returns
    -------
    list of Classification
        One for each text.

    Raises
    ------
    UnsupportedError
        Codes ``not_an_encoder``, ``head_missing`` and ``no_special_tokens``.
    UsageError
        Codes ``ambiguous_head``, ``bad_texts`` and ``bad_option``.
    DataError
        Codes ``empty_text`` and ``unencodable_text``.
    GenerationError
        Code ``context_length_exceeded``.
    """
    chosen = head_of(lm, "classify", "sequence", head)
    found = []
    for logits_V in read(lm, encoded_texts(lm, texts, pairs, cut=cut), chosen.name):
        scores = dict(zip(chosen.labels, SCORES[chosen.problem](logits_V).tolist(), strict=True))
        best = max(scores, key=scores.__getitem__)
        found.append(Classification(best, scores[best], scores))
    return found


def fill_mask(lm: LanguageModel, text: str, *, top_k: int = 5) -> list[list[Filling]]:
    """Tell which tokens fit in place of masks.

    Parameters
    ----------
    lm : LanguageModel
        An encoder with a masked head.
    text : str
        With one mask or several, each spelled ``[MASK]``. Spaces before a mask belong to what fills it.
    top_k : int
        How many tokens to return for each.

    Returns
    -------
    list of list of Filling
        For each mask its likeliest tokens, best first.

    Raises
    ------
    UnsupportedError
        Codes ``not_an_encoder``, ``head_missing`` and ``no_special_tokens``.
    UsageError
        Code ``bad_option``: `top_k` below 1.
    DataError
        Code ``mask_missing``; code ``unencodable_text``.
    GenerationError
        Code ``context_length_exceeded``.
    """
    chosen = head_of(lm, "fill-mask", "masked")
    if top_k < 1:
        raise UsageError("bad_option", f"top_k must be at least 1, not {top_k}")
    masked = _masked(lm, text)
    decode, special = lm.tokenizer.decode, {number: name for name, number in lm.tokenizer.special_ids.items()}
    at = np.flatnonzero(np.array(masked.ids) == lm.tokenizer.mask_id)
    found = []
    for logits_V in read(lm, [masked], chosen.name, remedy="shorten it")[0][at, : lm.tokenizer.vocab_size]:
        p_V = _probabilities(logits_V)
        best = np.argsort(-p_V, kind="stable")[:top_k].tolist()
        found.append([Filling(special.get(number) or decode([number]), number, float(p_V[number])) for number in best])
    return found


def embed(
    lm: LanguageModel,
    texts: Sequence[str],
    *,
    pooling: str | None = None,
    normalized: bool | None = None,
    cut: bool = False,
) -> np.ndarray:
    """Turn texts into vectors: near where they mean the same, if the model was trained for that.

    Parameters
    ----------
    lm : LanguageModel
        An encoder.
    texts : sequence of str
        Of any lengths that the model can read.
    pooling : {"mean", "first"}, optional
        The mean of the last hidden states of all tokens, special ones included, or that of the first; None: what the
        model's config says.
    normalized : bool, optional
        Whether each vector is given the length 1, so that inner products are cosines; None: what the config says.
    cut : bool
        Whether a text loses its end that is longer than the model's context, or than what its config says that it
        makes vectors of. False: it is an error.

    Returns
    -------
    ndarray of float32, (number of texts, D)
        One row for each text.

    Raises
    ------
    UnsupportedError
        Codes ``not_an_encoder`` and ``no_special_tokens``.
    UsageError
        Code ``bad_option``: no such pooling; code ``bad_texts``.
    DataError
        Codes ``empty_text`` and ``unencodable_text``.
    GenerationError
        Code ``context_length_exceeded``.
    """
    config = encoder_of(lm, "embed").config
    pooling = config.pooling if pooling is None else pooling
    if pooling not in ("mean", "first"):
        raise UsageError("bad_option", f"pooling must be mean or first, not {pooling!r}")
    normalized = config.normalized if normalized is None else normalized
    limit = config.embed_tokens
    hidden = read(lm, encoded_texts(lm, texts, cut=cut, limit=limit), "hidden", limit=limit)
    vectors_BD = np.empty((len(hidden), config.d_model), np.float32)
    for row, states_TD in enumerate(hidden):
        vectors_BD[row] = states_TD.mean(axis=0) if pooling == "mean" else states_TD[0]
    if normalized:
        vectors_BD /= np.maximum(np.linalg.norm(vectors_BD, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return vectors_BD


def _masked(lm: LanguageModel, text: str) -> Encoded:
    """Encode a text with masks: the pieces between them, joined by the mask token."""
    tokenizer = lm.tokenizer
    if tokenizer.mask_id is None or tokenizer.cls_id is None or tokenizer.sep_id is None:
        raise UnsupportedError(
            "no_special_tokens", "this tokenizer has no mask; train one for an encoder, with encoder=True"
        )
    *before, last = text.split(MASK)
    if not before:
        raise DataError("mask_missing", f"there is no {MASK} in the text; write it where a token is to be guessed")
    pieces = tokenizer.encode_batch([*(piece.rstrip() for piece in before), last])
    ids = [tokenizer.cls_id]
    for piece in pieces[:-1]:
        ids += [*piece, tokenizer.mask_id]
    ids += [*pieces[-1], tokenizer.sep_id]
    return Encoded(ids, [0] * len(ids), [(0, 0)] * len(ids))


def _probabilities(logits_V: np.ndarray) -> np.ndarray:
    p_V: np.ndarray = ops.softmax(logits_V[None])[0][0]
    return p_V


def _logistic(logits_V: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x)), written so that nothing overflows."""
    p_V: np.ndarray = 0.5 + 0.5 * np.tanh(0.5 * logits_V)
    return p_V


SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # by the problem of a head
    "single_label": _probabilities,
    "multi_label": _logistic,
    "regression": np.asarray,
}
