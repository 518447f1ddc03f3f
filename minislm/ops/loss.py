"""Losses: what training makes small. Each is a mean, a Python float summed in float64."""

from __future__ import annotations

import numpy as np

from minislm.errors import DataError
from minislm.ops.softmax import log_softmax, nonzero, row_max

CrossEntropySaved = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int, float]
KlSaved = tuple[np.ndarray, np.ndarray, np.ndarray, float, bool]
CosineSaved = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def cross_entropy(
    logits_NV: np.ndarray, targets_N: np.ndarray, *, ignore: int = -100, label_smoothing: float = 0.0
) -> tuple[float, CrossEntropySaved]:
    """Return the mean negative log-probability of the targets, in nats.

    Parameters
    ----------
    logits_NV : ndarray, (N, V), float32 or float64
        Logits of a row for every prediction.
    targets_N : ndarray of int, (N,)
        The right classes, from 0 to V - 1, or `ignore`.
    ignore : int
        Targets that do not count.
    label_smoothing : float
        Share of each target that is spread evenly over all classes, from 0 to 1.

    Returns
    -------
    loss : float
        Mean over the targets that count; 0.0 if none does.
    saved : tuple
        ``(logits_NV, top_N, total_N, targets_N, ignore, label_smoothing)`` with each row's largest logit and sum of
        exponentials below it, for `cross_entropy_backward`.

    Raises
    ------
    DataError
        Code ``target_out_of_range``.

    Notes
    -----
    ::

        log p = logits - top - log(total)      top = max(logits), total = Σᵥ exp(logits - top)
        loss = mean over n of -(1 - smoothing) log p[n, target] - smoothing mean over v of log p[n, v]

    One temporary of N V numbers; about 4 N V operations. Sums over V in the dtype of the logits, over N in float64.

    References
    ----------
    Szegedy et al. 2015, arXiv:1512.00567, section 7 (label smoothing).

    Examples
    --------
    >>> loss, saved = cross_entropy(np.log([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 0]))
    >>> round(float(loss / np.log(2.0)), 6)  # 1 and 2 bits
    1.5
    """
    kept_N = targets_N != ignore
    picked_N = np.where(kept_N, targets_N, 0)
    if picked_N.size and not 0 <= picked_N.min() <= picked_N.max() < logits_NV.shape[1]:
        raise DataError(
            "target_out_of_range",
            f"targets must be from 0 to {logits_NV.shape[1] - 1}, or {ignore} where they do not count; "
            f"these reach from {picked_N.min()} to {picked_N.max()}",
        )
    top_N = row_max(logits_NV)[:, 0]
    e_NV = logits_NV - top_N[:, None]
    np.exp(e_NV, out=e_NV)
    total_N = nonzero(e_NV.sum(axis=1))
    loss_N = np.log(total_N) - (logits_NV[np.arange(len(picked_N)), picked_N] - top_N)
    if label_smoothing:
        loss_N *= 1.0 - label_smoothing
        loss_N += label_smoothing * (np.log(total_N) - (logits_NV.mean(axis=1) - top_N))
    loss = float(loss_N.sum(dtype=np.float64, where=kept_N)) / max(int(kept_N.sum()), 1)
    return loss, (logits_NV, top_N, total_N, targets_N, ignore, label_smoothing)


def cross_entropy_backward(dloss: float, saved: CrossEntropySaved) -> np.ndarray:
    """Return the gradient of `cross_entropy`'s logits.

    Parameters
    ----------
    dloss : float
        Gradient of the loss: 1.0, or a factor that it is multiplied by.
    saved : tuple
        What `cross_entropy` saved.

    Returns
    -------
    ndarray, (N, V)
        Gradient of the logits; zero in rows that do not count.

    Notes
    -----
    With n targets that count::

        dlogits = dloss / n (p - (1 - smoothing) onehot(target) - smoothing / V)

    The exponentials are computed again: forward would have to keep N V numbers for them.

    Examples
    --------
    >>> loss, saved = cross_entropy(np.log([[0.25, 0.75]]), np.array([0]))
    >>> cross_entropy_backward(1.0, saved)
    array([[-0.75,  0.75]])
    """
    logits_NV, top_N, total_N, targets_N, ignore, label_smoothing = saved
    kept_N = targets_N != ignore
    share = dloss / max(int(kept_N.sum()), 1)  # undo the mean
    dlogits_NV: np.ndarray = logits_NV - top_N[:, None]
    np.exp(dlogits_NV, out=dlogits_NV)
    dlogits_NV *= share / total_N[:, None]  # undo log(total): share * p
    if label_smoothing:
        dlogits_NV -= share * label_smoothing / logits_NV.shape[1]  # undo the mean of the logits
    rows = np.flatnonzero(kept_N)
    dlogits_NV[rows, targets_N[rows]] -= share * (1.0 - label_smoothing)  # undo logits[n, target]
    dlogits_NV[~kept_N] = 0.0  # undo where=kept
    return dlogits_NV


def kl_divergence(
    logits_NV: np.ndarray,
    teacher_NV: np.ndarray,
    *,
    temperature: float = 1.0,
    reverse: bool = False,
    keep_N: np.ndarray | None = None,
) -> tuple[float, KlSaved]:
    """Return how far a student's distribution is from its teacher's, in nats times temperature².

    Parameters
    ----------
    logits_NV : ndarray, (N, V), float32 or float64
        Student's logits.
    teacher_NV : ndarray, (N, V)
        Teacher's logits; they get no gradient.
    temperature : float
        Both sides' logits are divided by it; above 1 small probabilities count more.
    reverse : bool
        False: KL(teacher || student), which asks the student to cover all that the teacher finds likely. True:
        KL(student || teacher), which asks it to avoid all that the teacher finds unlikely.
    keep_N : ndarray of bool, (N,), optional
        Rows that count; None: all.

    Returns
    -------
    loss : float
        Mean over the rows that count; 0.0 if none does.
    saved : tuple
        ``(log_student_NV, log_teacher_NV, keep_N, temperature, reverse)``, for `kl_divergence_backward`.

    Notes
    -----
    ::

        p = softmax(teacher / temperature), q = softmax(logits / temperature)
        loss = temperature² mean over n of Σᵥ p log(p / q)      (reverse: p and q exchanged)

    Gradients shrink with 1 / temperature²; the factor, part of loss and gradient, makes up for it, so that changing the
    temperature does not change the weight of this loss beside others. Where the first of the two is 0, the term is 0.
    About 15 N V operations; sums over V in the dtype of the logits, over N in float64.

    References
    ----------
    Hinton, Vinyals and Dean 2015, arXiv:1503.02531, section 2. Reverse: Gu et al. 2023,
    arXiv:2306.08543, section 2.1.

    Examples
    --------
    >>> loss, saved = kl_divergence(np.log([[0.5, 0.5]]), np.array([[0.0, -np.inf]]))
    >>> round(float(loss / np.log(2.0)), 6)  # the teacher is certain, the student is one bit away
    1.0
    """
    keep_N = np.ones(len(logits_NV), bool) if keep_N is None else keep_N
    log_student_NV = log_softmax(logits_NV * (1.0 / temperature))
    log_teacher_NV = log_softmax(teacher_NV * (1.0 / temperature))
    log_p_NV, log_q_NV = (log_student_NV, log_teacher_NV) if reverse else (log_teacher_NV, log_student_NV)
    loss_N = np.vecdot(np.exp(log_p_NV), _log_ratio(log_p_NV, log_q_NV))
    loss = float(loss_N.sum(dtype=np.float64, where=keep_N)) * temperature**2 / max(int(keep_N.sum()), 1)
    return loss, (log_student_NV, log_teacher_NV, keep_N, temperature, reverse)


def kl_divergence_backward(dloss: float, saved: KlSaved) -> np.ndarray:
    """Return the gradient of `kl_divergence`'s student logits.

    Parameters
    ----------
    dloss : float
        Gradient of the loss.
    saved : tuple
        What `kl_divergence` saved.

    Returns
    -------
    ndarray, (N, V)
        Gradient of the student's logits; zero in rows that do not count.

    Notes
    -----
    With n rows that count, and p the teacher, q the student::

        dlogits = dloss temperature / n (q - p)
        dlogits = dloss temperature / n q (log(q / p) - Σᵥ q log(q / p))      (reverse)

    One power of the loss's temperature² is used up by undoing logits / temperature.

    Examples
    --------
    >>> loss, saved = kl_divergence(np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]]))
    >>> kl_divergence_backward(1.0, saved)
    array([[ 0.25, -0.25]])
    """
    log_student_NV, log_teacher_NV, keep_N, temperature, reverse = saved
    dlogits_NV: np.ndarray = np.exp(log_student_NV)
    if reverse:
        ratio_NV = _log_ratio(log_student_NV, log_teacher_NV)
        ratio_NV -= np.vecdot(dlogits_NV, ratio_NV)[:, None]
        dlogits_NV *= ratio_NV  # undo Σ q log(q / p), q = softmax
    else:
        dlogits_NV -= np.exp(log_teacher_NV)  # undo -Σ p log q, q = softmax
    dlogits_NV *= dloss * temperature / max(int(keep_N.sum()), 1)  # undo logits / temperature and the mean
    dlogits_NV[~keep_N] = 0.0  # undo where=keep
    return dlogits_NV


def _log_ratio(log_p_NV: np.ndarray, log_q_NV: np.ndarray) -> np.ndarray:
    """Return log(p / q), and 0 where p is 0, because such entries carry no weight."""
    with np.errstate(invalid="ignore"):  # -inf - -inf
        ratio_NV: np.ndarray = log_p_NV - log_q_NV
    ratio_NV[log_p_NV == -np.inf] = 0.0
    return ratio_NV


def mean_square(x: np.ndarray, target: np.ndarray) -> tuple[float, tuple[np.ndarray]]:
    """Return the mean squared difference of two arrays.

    Parameters
    ----------
    x : ndarray, any shape, float32 or float64
        What is trained.
    target : ndarray, same shape
        What it should be; it gets no gradient.

    Returns
    -------
    loss : float
        Mean over all entries; 0.0 if there are none.
    saved : tuple
        ``(x - target,)``, for `mean_square_backward`.

    Notes
    -----
    ::

        loss = mean((x - target)²)

    3 operations an entry; summed in float64.

    References
    ----------
    Romero et al. 2014, arXiv:1412.6550, equation 3 (hidden states of a teacher as targets, there without the mean).

    Examples
    --------
    >>> mean_square(np.array([1.0, 2.0]), np.array([1.0, 4.0]))[0]
    2.0
    """
    error = x - target
    return float(np.square(error).sum(dtype=np.float64)) / max(error.size, 1), (error,)


def mean_square_backward(dloss: float, saved: tuple[np.ndarray]) -> np.ndarray:
    """Return the gradient of `mean_square`'s first argument.

    Parameters
    ----------
    dloss : float
        Gradient of the loss.
    saved : tuple
        What `mean_square` saved.

    Returns
    -------
    ndarray
        Gradient of `x`, of its shape.

    Notes
    -----
    With n entries::

        dx = dloss 2 / n (x - target)

    Examples
    --------
    >>> mean_square_backward(1.0, (np.array([0.0, -2.0]),))
    array([ 0., -2.])
    """
    (error,) = saved
    dx: np.ndarray = error * (2.0 * float(dloss) / max(error.size, 1))  # undo mean(error²)
    return dx


def cosine_distance(x_ND: np.ndarray, target_ND: np.ndarray) -> tuple[float, CosineSaved]:
    """Return the mean over rows of one minus the cosine of the angle between them.

    Parameters
    ----------
    x_ND : ndarray, (N, D), float32 or float64
        Rows that are trained.
    target_ND : ndarray, (N, D)
        Rows that they should point along; they get no gradient.

    Returns
    -------
    loss : float
        From 0 (one direction) to 2 (opposite ones); a row of zeros counts 1. 0.0 if there are no rows.
    saved : tuple
        ``(unit_x_ND, unit_target_ND, cosine_N, length_N)``, for `cosine_distance_backward`.

    Notes
    -----
    ::

        loss = mean over n of 1 - x · target / (|x| |target|)

    Rows are divided by their largest entry before their squares are summed, so that lengths neither overflow nor
    vanish. About 10 N D operations; sums over D in the dtype of `x`, over N in float64.

    References
    ----------
    Sanh et al. 2019, arXiv:1910.01108, section 2 (the direction of a teacher's hidden states).

    Examples
    --------
    >>> cosine_distance(np.array([[2.0, 0.0], [1.0, 0.0]]), np.array([[5.0, 0.0], [0.0, 3.0]]))[0]
    0.5
    """
    unit_x_ND, length_N = _unit_rows(x_ND)
    unit_target_ND, _ = _unit_rows(target_ND)
    cosine_N = np.vecdot(unit_x_ND, unit_target_ND)
    loss = float((1.0 - cosine_N).sum(dtype=np.float64)) / max(len(cosine_N), 1)
    return loss, (unit_x_ND, unit_target_ND, cosine_N, length_N)


def cosine_distance_backward(dloss: float, saved: CosineSaved) -> np.ndarray:
    """Return the gradient of `cosine_distance`'s first argument.

    Parameters
    ----------
    dloss : float
        Gradient of the loss.
    saved : tuple
        What `cosine_distance` saved.

    Returns
    -------
    ndarray, (N, D)
        Gradient of `x`, at a right angle to it; zero for a row of zeros.

    Notes
    -----
    With unit rows u and w of `x` and the target::

        dx = dloss / N (u (u · w) - w) / |x|

    Examples
    --------
    >>> _, saved = cosine_distance(np.array([[2.0, 0.0]]), np.array([[0.0, 3.0]]))
    >>> cosine_distance_backward(1.0, saved)
    array([[ 0. , -0.5]])
    """
    unit_x_ND, unit_target_ND, cosine_N, length_N = saved
    dx_ND: np.ndarray = unit_x_ND * cosine_N[:, None]
    dx_ND -= unit_target_ND  # undo -unit_x · unit_target, without the part along unit_x
    dx_ND *= dloss / max(len(cosine_N), 1) / length_N[:, None]  # undo the mean and unit_x = x / |x|
    dx_ND[~unit_x_ND.any(axis=1)] = 0.0  # a row of zeros has no direction
    return dx_ND


def _unit_rows(x_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows divided by their lengths, and the lengths; a row of zeros stays one, its length counting as 1."""
    largest_N = nonzero(np.abs(x_ND).max(axis=1, initial=0.0))
    unit_ND = x_ND / largest_N[:, None]
    length_N = nonzero(np.sqrt(np.vecdot(unit_ND, unit_ND)))
    unit_ND /= length_N[:, None]
    return unit_ND, largest_N * length_N
