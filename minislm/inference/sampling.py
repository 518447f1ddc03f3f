"""From logits to a token: pure functions, in the order and with the meaning of Hugging Face transformers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minislm.dispatch import ops
from minislm.errors import GenerationError
from minislm.inference.settings import GenerationSettings

PIECE = 256  # probabilities that are added up before it is looked which of them is meant


def penalize_repetition(logits_V: np.ndarray, seen: Sequence[int], penalty: float) -> np.ndarray:
    """Make tokens that have appeared less likely (more likely for a penalty below 1).

    Parameters
    ----------
    logits_V : ndarray of float, (V,)
        Logits.
    seen : sequence of int
        Ids of the prompt and of the text so far; those beyond V are passed over.
    penalty : float
        Above 0; 1 changes nothing.

    Returns
    -------
    ndarray of float, (V,)
        Logits divided by the penalty where positive and multiplied by it where negative, for the ids seen.

    References
    ----------
    .. [1] Keskar, McCann, Varshney, Xiong, Socher (2019), "CTRL", arXiv 1909.05858, section 4.1.
    """
    ids = np.unique(np.asarray(seen, np.int64))
    ids = ids[ids < logits_V.size]
    penalized_V = logits_V.copy()
    penalized_V[ids] = np.where(logits_V[ids] < 0, logits_V[ids] * penalty, logits_V[ids] / penalty)
    return penalized_V


def check_finite(logits: np.ndarray) -> None:
    """Refuse logits from which nothing can be chosen.

    Parameters
    ----------
    logits : ndarray of float
        Logits.

    Raises
    ------
    GenerationError
        Code ``logits_not_finite``: a logit is infinite or not a number.
    """
    if not np.isfinite(logits).all():
        n_bad = np.count_nonzero(~np.isfinite(logits))
        raise GenerationError(
            "logits_not_finite",
            f"{n_bad} of {logits.size} logits are infinite or not numbers: the model's weights are damaged or its "
            "training diverged; use an earlier checkpoint",
        )


def repeating(seen: Sequence[int], n: int) -> set[int]:
    """Tell which tokens would complete a sequence of tokens that was there before.

    Parameters
    ----------
    seen : sequence of int
        Ids so far.
    n : int
        Length of the sequences, at least 1.

    Returns
    -------
    set of int
        What followed the last n - 1 ids wherever else they stand.

    References
    ----------
    .. [1] Paulus, Xiong, Socher (2017), "A deep reinforced model for abstractive summarization", arXiv 1705.04304,
       section 2.5.

    Examples
    --------
    >>> repeating([7, 1, 2, 9, 1, 2], 3)
    {9}
    """
    end = list(seen[len(seen) - n + 1 :])
    return {seen[i + n - 1] for i in range(len(seen) - n + 1) if list(seen[i : i + n - 1]) == end}


def probabilities(
    logits: np.ndarray, settings: GenerationSettings, seen: Sequence[int], allowed_V: np.ndarray | None = None
) -> np.ndarray:
    """Return the distribution from which the next token is drawn.

    Parameters
    ----------
    logits : ndarray of float, (V,)
        The model's logits.
    settings : GenerationSettings
        The repetition penalty, temperature, top-k, top-p and min-p, applied in this order.
    seen : sequence of int
        Ids of the prompt and of the text so far.
    allowed_V : ndarray of bool, (V,), optional
        False for tokens that must not come; None: all may.

    Returns
    -------
    ndarray of float, (V,)
        Probabilities; at temperature 0 a one at the most likely token, the lowest id of equals.

    Raises
    ------
    GenerationError
        Code ``logits_not_finite``: a logit is infinite or not a number.
    """
    logits_V = _permitted(logits, settings, seen, allowed_V)
    if settings.temperature == 0.0:
        p_V = np.zeros_like(logits_V)
        p_V[logits_V.argmax()] = 1.0
        return p_V
    return _probabilities(logits_V, settings)


def _permitted(
    logits: np.ndarray, settings: GenerationSettings, seen: Sequence[int], allowed_V: np.ndarray | None
) -> np.ndarray:
    """Check logits, penalize what was there before, and rule out what must not come."""
    check_finite(logits)
    if settings.repetition_penalty != 1.0:
        logits = penalize_repetition(logits, seen, settings.repetition_penalty)
    return logits if allowed_V is None else np.where(allowed_V, logits, -np.inf)


def _probabilities(logits_V: np.ndarray, settings: GenerationSettings) -> np.ndarray:
    """Return the distribution at a temperature above 0."""
    p_V: np.ndarray = ops.token_probabilities(
        logits_V[None],
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        min_p=settings.min_p,
    )[0]
    return p_V


def choose(
    logits: np.ndarray,
    settings: GenerationSettings,
    seen: Sequence[int],
    index: int,
    allowed_V: np.ndarray | None = None,
) -> int:
    """Choose the next token.

    Parameters
    ----------
    logits : ndarray of float, (V,)
        The model's logits.
    settings : GenerationSettings
        How to choose, with the seed.
    seen : sequence of int
        Ids of the prompt and of the text so far.
    index : int
        How many new tokens there are so far: with the seed the counter from which the randomness comes, so that a
        result depends on no earlier draw and on no other sequence.
    allowed_V : ndarray of bool, (V,), optional
        False for tokens that must not come; None: all may.

    Returns
    -------
    int
        The token's id.

    Raises
    ------
    GenerationError
        Code ``logits_not_finite``.
    """
    logits_V = _permitted(logits, settings, seen, allowed_V)
    if settings.temperature == 0.0:
        return int(logits_V.argmax())
    p_V = _probabilities(logits_V, settings)
    return _drawn(p_V, np.random.Generator(np.random.Philox(key=np.array([settings.seed, index], np.uint64))).random())


def _drawn(p_V: np.ndarray, uniform: float) -> int:
    """Return the token at whose probability the running sum passes a number in [0, 1), looking into one piece only."""
    pieces_J = np.add.reduceat(p_V, np.arange(0, p_V.size, PIECE))
    ends_J = pieces_J.cumsum(dtype=np.float64)
    aim = uniform * ends_J[-1]
    piece = int(np.searchsorted(ends_J, aim, side="right"))
    first = piece * PIECE
    inside = p_V[first : first + PIECE].cumsum(dtype=np.float64)
    chosen = int(np.searchsorted(inside, aim - (ends_J[piece] - pieces_J[piece]), side="right"))
    if chosen == inside.size:  # the sum of a piece may round to more than its parts
        chosen = int(np.flatnonzero(p_V[first : first + PIECE])[-1])
    return first + chosen
