"""How far distributions are from others, such as attention maps from a teacher's."""

from __future__ import annotations

import numpy as np

EntropySaved = tuple[np.ndarray, np.ndarray, np.ndarray]


def relative_entropy(
    p_NS: np.ndarray, target_NS: np.ndarray, *, keep_N: np.ndarray | None = None
) -> tuple[float, EntropySaved]:
    """Return the mean over rows of the Kullback-Leibler divergence of given probabilities.

    Parameters
    ----------
    p_NS : ndarray, (N, S), float32 or float64
        Distributions that are trained. Below the smallest normal number a probability counts as that.
    target_NS : ndarray, (N, S)
        Distributions that they should be; they get no gradient.
    keep_N : ndarray of bool, (N,), optional
        Rows that count; None: all.

    Returns
    -------
    loss : float
        In nats, the mean over the rows that count; 0.0 if none does.
    saved : tuple
        ``(p_NS, target_NS, keep_N)``, for `relative_entropy_backward`.

    Notes
    -----
    ::

        loss = mean over n of Σₛ target log(target / p)

    Where the target is 0, the term is 0. About 5 N S operations; sums in float64.

    References
    ----------
    Wang et al. 2020, "MiniLM", arXiv:2002.10957, section 3.1 (attention maps as targets).

    Examples
    --------
    >>> loss, saved = relative_entropy(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]]))
    >>> round(float(loss / np.log(2.0)), 6)
    1.0
    """
    keep_N = np.ones(len(p_NS), bool) if keep_N is None else keep_N
    tiny = np.finfo(p_NS.dtype).tiny
    p_NS = np.maximum(p_NS, tiny)
    terms_NS = target_NS * (np.log(np.maximum(target_NS, tiny)) - np.log(p_NS))
    loss = float(terms_NS.sum(axis=1, dtype=np.float64).sum(where=keep_N)) / max(int(keep_N.sum()), 1)
    return loss, (p_NS, target_NS, keep_N)


def relative_entropy_backward(dloss: float, saved: EntropySaved) -> np.ndarray:
    """Return the gradient of `relative_entropy`'s first argument.

    Parameters
    ----------
    dloss : float
        Gradient of the loss.
    saved : tuple
        What `relative_entropy` saved.

    Returns
    -------
    ndarray, (N, S)
        Gradient of `p`; zero in rows that do not count.

    Notes
    -----
    With n rows that count::

        dp = -dloss / n target / p

    Examples
    --------
    >>> _, saved = relative_entropy(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]]))
    >>> relative_entropy_backward(1.0, saved)
    array([[-2., -0.]])
    """
    p_NS, target_NS, keep_N = saved
    dp_NS: np.ndarray = target_NS / p_NS  # undo -Σ target log p
    dp_NS *= -dloss / max(int(keep_N.sum()), 1)  # undo the mean
    dp_NS[~keep_N] = 0.0  # undo keep
    return dp_NS
