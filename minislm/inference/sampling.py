"""From logits to a token: pure functions, in the order and with the meaning of Hugging Face transformers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minislm.dispatch import ops
from minislm.errors import GenerationError
from minislm.inference.settings import GenerationSettings


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


def keep_top_k(logits_V: np.ndarray, k: int) -> np.ndarray:
    """Keep the k most likely tokens, and those as likely as the last of them.

    Parameters
    ----------
    logits_V : ndarray of float, (V,)
        Logits.
    k : int
        At least 1; more than V keeps all.

    Returns
    -------
    ndarray of float, (V,)
        Logits, -inf for tokens that are not kept.

    References
    ----------
    .. [1] Fan, Lewis, Dauphin (2018), "Hierarchical neural story generation", arXiv 1805.04833, section 5.4.
    """
    if k >= logits_V.size:
        return logits_V
    lowest = np.partition(logits_V, -k)[-k]
    return np.where(logits_V < lowest, -np.inf, logits_V)


def keep_top_p(logits_V: np.ndarray, p: float) -> np.ndarray:
    """Keep the fewest most likely tokens that together reach a probability (nucleus sampling).

    Parameters
    ----------
    logits_V : ndarray of float, (V,)
        Logits.
    p : float
        In (0, 1]. Of equally likely tokens those with the lower ids come first.

    Returns
    -------
    ndarray of float, (V,)
        Logits, -inf for tokens that are not kept.

    References
    ----------
    .. [1] Holtzman, Buys, Du, Forbes, Choi (2020), "The curious case of neural text degeneration", arXiv 1904.09751,
       section 3.1.
    """
    probabilities_V = ops.softmax(logits_V[None])[0][0]
    # Tokens below this share of what may be left out are less than half of it together: no need to sort them.
    ids = np.flatnonzero(probabilities_V >= (1 - p) / (2 * logits_V.size))
    ids = ids[np.argsort(-logits_V[ids], kind="stable")]
    probabilities = probabilities_V[ids]
    before = np.cumsum(probabilities) - probabilities  # what the more likely tokens reach without this one
    kept = ids[: max(1, np.count_nonzero(before < p))]
    kept_V = np.full_like(logits_V, -np.inf)
    kept_V[kept] = logits_V[kept]
    return kept_V


def keep_min_p(logits_V: np.ndarray, p: float) -> np.ndarray:
    """Keep tokens at least `p` times as likely as the most likely one.

    Parameters
    ----------
    logits_V : ndarray of float, (V,)
        Logits.
    p : float
        In (0, 1].

    Returns
    -------
    ndarray of float, (V,)
        Logits, -inf for tokens that are not kept.

    References
    ----------
    .. [1] Nguyen et al. (2024), "Turning up the heat: min-p sampling", arXiv 2407.01082, algorithm 1.
    """
    return np.where(logits_V < logits_V.max() + np.log(p), -np.inf, logits_V)


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
        The model's logits; computed on in float64.
    settings : GenerationSettings
        The repetition penalty, temperature, top-k, top-p and min-p, applied in this order.
    seen : sequence of int
        Ids of the prompt and of the text so far.
    allowed_V : ndarray of bool, (V,), optional
        False for tokens that must not come; None: all may.

    Returns
    -------
    ndarray of float64, (V,)
        Probabilities; at temperature 0 a one at the most likely token, the lowest id of equals.

    Raises
    ------
    GenerationError
        Code ``logits_not_finite``: a logit is infinite or not a number.
    """
    ids, p = _candidates(logits, settings, seen, allowed_V)
    if ids is None:
        return p
    p_V = np.zeros(np.size(logits))
    p_V[ids] = p
    return p_V


def _candidates(
    logits: np.ndarray, settings: GenerationSettings, seen: Sequence[int], allowed_V: np.ndarray | None
) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the ids that top-k leaves in order, None for all, and what `probabilities` says of them."""
    check_finite(logits)
    logits_V = np.asarray(logits, np.float64)
    if settings.repetition_penalty != 1.0:
        logits_V = penalize_repetition(logits_V, seen, settings.repetition_penalty)
    if allowed_V is not None:
        logits_V = np.where(allowed_V, logits_V, -np.inf)
    if settings.temperature == 0.0:
        return np.array([logits_V.argmax()]), np.ones(1)
    with np.errstate(over="ignore"):  # the highest stays 0; a tiny temperature sends the others to -inf
        logits_V = (logits_V - logits_V.max()) / settings.temperature
    ids = None
    if settings.top_k:
        logits_V = keep_top_k(logits_V, settings.top_k)
        ids = np.flatnonzero(logits_V > -np.inf)
        logits_V = logits_V[ids]  # a few, and there is nothing left to do with the others
    if settings.top_p < 1.0:
        logits_V = keep_top_p(logits_V, settings.top_p)
    if settings.min_p > 0.0:
        logits_V = keep_min_p(logits_V, settings.min_p)
    return ids, ops.softmax(logits_V[None])[0][0]


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
    if settings.temperature == 0.0 and settings.repetition_penalty == 1.0:
        check_finite(logits)
        return int((logits if allowed_V is None else np.where(allowed_V, logits, -np.inf)).argmax())
    ids, p = _candidates(logits, settings, seen, allowed_V)
    if ids is not None and ids.size == 1:
        return int(ids[0])
    uniform = np.random.Generator(np.random.Philox(key=np.array([settings.seed, index], np.uint64))).random()
    chosen = int(np.searchsorted(np.cumsum(p), uniform, side="right"))
    if chosen == p.size:  # the sum of all may round to less than 1
        chosen = int(np.flatnonzero(p)[-1])
    return chosen if ids is None else int(ids[chosen])
