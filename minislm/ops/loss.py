"""Losses: what training makes small, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from minislm.errors import DataError
from minislm.ops.softmax import log_softmax


def cross_entropy(
    logits_NV: np.ndarray, targets_N: np.ndarray, *, ignore: int = -100, label_smoothing: float = 0.0
) -> tuple[float, Any]:
    """Return the mean negative log-probability of the targets, in nats."""
    kept_N = targets_N != ignore
    picked_N = np.where(kept_N, targets_N, 0)
    if picked_N.size and not 0 <= picked_N.min() <= picked_N.max() < logits_NV.shape[1]:
        raise DataError(
            "target_out_of_range",
            f"targets must be from 0 to {logits_NV.shape[1] - 1} or {ignore} (ignored); "
            f"they reach from {picked_N.min()} to {picked_N.max()}",
        )
    top_N = logits_NV.max(axis=1)
    e_NV = logits_NV - top_N[:, None]
    np.exp(e_NV, out=e_NV)
    logsumexp_N = np.log(e_NV.sum(axis=1))
    logsumexp_N += top_N
    loss_N = logsumexp_N - logits_NV[np.arange(len(picked_N)), picked_N]
    if label_smoothing:
        loss_N *= 1.0 - label_smoothing
        loss_N += label_smoothing * (logsumexp_N - logits_NV.mean(axis=1))
    loss = float(loss_N.sum(dtype=np.float64, where=kept_N)) / max(int(kept_N.sum()), 1)
    return loss, (logits_NV, logsumexp_N, targets_N, ignore, label_smoothing)


def cross_entropy_backward(dloss: float, saved: Any) -> np.ndarray:
    """Return the gradient of `cross_entropy`'s `logits`."""
    logits_NV, logsumexp_N, targets_N, ignore, label_smoothing = saved
    kept_N = targets_N != ignore
    share = dloss / max(int(kept_N.sum()), 1)
    dlogits_NV = logits_NV - logsumexp_N[:, None]
    np.exp(dlogits_NV, out=dlogits_NV)
    if label_smoothing:
        dlogits_NV -= label_smoothing / logits_NV.shape[1]
    rows = np.flatnonzero(kept_N)
    dlogits_NV[rows, targets_N[rows]] -= 1.0 - label_smoothing
    dlogits_NV *= share
    dlogits_NV[~kept_N] = 0.0
    return dlogits_NV


def kl_divergence(
    logits_NV: np.ndarray,
    teacher_NV: np.ndarray,
    *,
    temperature: float = 1.0,
    reverse: bool = False,
    keep_N: np.ndarray | None = None,
) -> tuple[float, Any]:
    """Return how far the student's distribution is from its teacher's, in nats times temperature squared."""
    keep_N = np.ones(len(logits_NV), bool) if keep_N is None else keep_N
    log_student_NV = log_softmax(logits_NV * (1.0 / temperature))
    log_teacher_NV = log_softmax(teacher_NV * (1.0 / temperature))
    of_NV, to_NV = (log_student_NV, log_teacher_NV) if reverse else (log_teacher_NV, log_student_NV)
    loss_N = np.vecdot(np.exp(of_NV), _log_ratio(of_NV, to_NV))
    loss = float(loss_N.sum(dtype=np.float64, where=keep_N)) * temperature**2 / max(int(keep_N.sum()), 1)
    return loss, (log_student_NV, log_teacher_NV, keep_N, temperature, reverse)


def kl_divergence_backward(dloss: float, saved: Any) -> np.ndarray:
    """Return the gradient of `kl_divergence`'s `logits`."""
    log_student_NV, log_teacher_NV, keep_N, temperature, reverse = saved
    dlogits_NV = np.exp(log_student_NV)
    if reverse:
        ratio_NV = _log_ratio(log_student_NV, log_teacher_NV)
        ratio_NV -= np.vecdot(dlogits_NV, ratio_NV)[:, None]
        dlogits_NV *= ratio_NV
    else:
        dlogits_NV -= np.exp(log_teacher_NV)
    dlogits_NV *= dloss * temperature / max(int(keep_N.sum()), 1)
    dlogits_NV[~keep_N] = 0.0
    return dlogits_NV


def _log_ratio(log_p_NV: np.ndarray, log_q_NV: np.ndarray) -> np.ndarray:
    """Return log(p / q), 0 where p is 0: such entries carry no weight."""
    return np.subtract(log_p_NV, log_q_NV, out=np.zeros_like(log_p_NV), where=log_p_NV != -np.inf)


def mean_square(x: np.ndarray, target: np.ndarray) -> tuple[float, Any]:
    """Return the mean squared difference."""
    error = x - target
    return float(np.square(error).sum(dtype=np.float64)) / max(error.size, 1), (error,)


def mean_square_backward(dloss: float, saved: Any) -> np.ndarray:
    """Return the gradient of `mean_square`'s `x`."""
    (error,) = saved
    dx: np.ndarray = error * (2.0 * dloss / max(error.size, 1))
    return dx


def cosine_distance(x_ND: np.ndarray, target_ND: np.ndarray) -> tuple[float, Any]:
    """Return the mean over rows of one minus the cosine of the angle between them."""
    unit_x_ND, length_N = _unit_rows(x_ND)
    unit_target_ND, _ = _unit_rows(target_ND)
    cosine_N = np.vecdot(unit_x_ND, unit_target_ND)
    loss = float((1.0 - cosine_N).sum(dtype=np.float64)) / max(len(cosine_N), 1)
    return loss, (unit_x_ND, unit_target_ND, cosine_N, length_N)


def cosine_distance_backward(dloss: float, saved: Any) -> np.ndarray:
    """Return the gradient of `cosine_distance`'s `x`."""
    unit_x_ND, unit_target_ND, cosine_N, length_N = saved
    dx_ND = unit_x_ND * cosine_N[:, None]
    dx_ND -= unit_target_ND
    dx_ND *= (dloss / max(len(cosine_N), 1)) / length_N[:, None]
    dx_ND[~unit_x_ND.any(axis=1)] = 0.0
    return dx_ND


def _unit_rows(x_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows divided by their lengths, and the lengths; a row of zeros stays one, its length counting as 1."""
    length_N = np.sqrt(np.vecdot(x_ND, x_ND))
    length_N[length_N == 0.0] = 1.0
    return x_ND / length_N[:, None], length_N
