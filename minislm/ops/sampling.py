"""From logits to the distribution that the next token is drawn from, in the order of Hugging Face transformers."""

from __future__ import annotations

import numpy as np

from minislm.ops.softmax import softmax


def token_probabilities(
    logits_NV: np.ndarray, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> np.ndarray:
    """Return the distributions over the tokens that are left.

    Parameters
    ----------
    logits_NV : ndarray, (N, V), float32 or float64
        Logits; -inf means impossible.
    temperature : float
        Above 0: logits are divided by it.
    top_k : int
        How many of the most likely tokens are left; 0: all.
    top_p : float
        In (0, 1]: then the fewest most likely tokens that together reach it.
    min_p : float
        In [0, 1]: then those at least this many times as likely as the most likely one.

    Returns
    -------
    ndarray, (N, V)
        Probabilities, 0 for tokens that are not left. A row with a logit that is NaN or +inf is NaN, one of nothing but
        -inf is 0.

    Notes
    -----
    ::

        p = softmax(keep_min_p(keep_top_p(keep_top_k((logits - max) / temperature))))

    Computed in float64. About 10 N V operations, and a sort of the likely tokens of each row for `top_p`.

    References
    ----------
    Holtzman et al. 2020, arXiv:1904.09751, equations 2 to 4.

    Examples
    --------
    >>> token_probabilities(np.log([[0.5, 0.2, 0.3], [0.05, 0.8, 0.15]]), top_k=2).round(4)
    array([[0.625 , 0.    , 0.375 ],
           [0.    , 0.8421, 0.1579]])
    """
    p_NV = np.zeros_like(logits_NV)
    for n, logits_V in enumerate(logits_NV.astype(np.float64)):
        top = logits_V.max(initial=-np.inf)
        if not top < np.inf:
            p_NV[n] = np.nan
        elif top > -np.inf:
            with np.errstate(over="ignore"):  # the highest stays 0; a tiny temperature sends the others to -inf
                left_V = (logits_V - top) / temperature
            left_V = keep_top_k(left_V, top_k) if top_k else left_V
            left_V = keep_top_p(left_V, top_p) if top_p < 1.0 else left_V
            left_V = keep_min_p(left_V, min_p) if min_p > 0.0 else left_V
            p_NV[n] = softmax(left_V[None])[0][0]
    return p_NV


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
    probabilities_V = softmax(logits_V[None])[0][0]
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
