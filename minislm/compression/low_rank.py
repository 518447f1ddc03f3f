"""Low rank: each matrix replaced by the product of two thin ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from minislm.compression.base import Method, Report, need
from minislm.compression.fitting import trained
from minislm.compression.parts import chosen, dense_matrix
from minislm.training.settings import TrainSettings
from minislm.weights.base import Weight
from minislm.weights.dense import Dense
from minislm.weights.product import Product

if TYPE_CHECKING:
    from minislm.training.data import TrainingData


@dataclass(frozen=True)
class LowRank(Method):
    """Replace each matrix by its best approximation of lower rank, stored as two factors.

    Exactly one of `rank`, `energy` and `size` says how low.

    Parameters
    ----------
    rank : int, optional
        The same rank for every matrix.
    energy : float, optional
        The smallest rank that keeps this share, (0, 1], of the sum of squared singular values.
    size : float, optional
        The largest rank at which the factors hold at most this share, (0, 1], of the matrix's parameters; 1 leaves
        everything as it is.
    training : TrainSettings, optional
        How to fine-tune the factors afterwards, with all else that has gradients; None: not at all.

    Notes
    -----
    ``W = U S V^T``; the factors are ``U_r sqrt(S_r)`` (O x R) and ``sqrt(S_r) V_r^T`` (R x I), the singular values
    being split evenly so that training moves both factors at the same pace. No matrix of rank r is nearer to W in the
    Frobenius norm, and the squared relative error is one minus the energy kept. A product then costs ``R (O + I)``
    multiplications instead of ``O I``; where that is no saving the matrix is left alone. The decomposition is computed
    in float64, at about ``O I min(O, I)`` operations.

    References
    ----------
    .. [1] Eckart, Young (1936), "The approximation of one matrix by another of lower rank", Psychometrika 1.

    Examples
    --------
    >>> LowRank(size=0.5).to_json()["size"]
    0.5
    """

    name: ClassVar[str] = "low_rank"

    rank: int | None = None
    energy: float | None = None
    size: float | None = None
    training: TrainSettings | None = None

    def check(self) -> None:
        """Raise UsageError unless exactly one bound is given, and in range."""
        check_bound(self, self.rank, self.energy, self.size)

    def run(
        self,
        model: Any,
        data: TrainingData | None = None,
        *,
        where: str = "*",
        original: Any = None,
        report: Report | None = None,
        directory: Path | None = None,
    ) -> Any:
        """Return the model with its chosen matrices factorised; see `Method.run`."""
        found: dict[str, Weight] = {}
        for path, weight in chosen(model, where).items():
            factors = factorised(dense_matrix(self, path, weight), self.rank, self.energy, self.size)
            found[path] = weight if factors is None else factors
        model = model.replaced(found)
        if self.training is None:
            return model
        return trained(self, model, data, self.training, report=report, directory=directory)


def check_bound(method: Method, rank: int | None, energy: float | None, size: float | None) -> None:
    """Refuse a bound that is missing, out of range, or one of several.

    Parameters
    ----------
    method : Method
        Named in the message.
    rank : int, optional
        As for `LowRank`.
    energy : float, optional
        As for `LowRank`.
    size : float, optional
        As for `LowRank`.

    Raises
    ------
    UsageError
        Code ``contradicting_options`` or ``bad_option``.
    """
    given = [name for name, value in (("rank", rank), ("energy", energy), ("size", size)) if value is not None]
    need(
        len(given) == 1,
        method,
        f"give exactly one of rank, energy and size; {' and '.join(given) or 'none'} came",
        "contradicting_options",
    )
    need(rank is None or rank >= 1, method, f"rank must be at least 1, not {rank}")
    for name, share in (("energy", energy), ("size", size)):
        need(share is None or 0 < share <= 1, method, f"{name} must lie in (0, 1], not {share}")


def factorised(
    w_OI: np.ndarray, rank: int | None = None, energy: float | None = None, size: float | None = None
) -> Product | None:
    """Return the best product of two factors, if it is smaller than the matrix.

    Parameters
    ----------
    w_OI : ndarray, (O, I), float32 or float64
        The matrix.
    rank : int, optional
        As for `LowRank`.
    energy : float, optional
        As for `LowRank`.
    size : float, optional
        As for `LowRank`.

    Returns
    -------
    Product or None
        ``Dense (O, R) @ Dense (R, I)`` of the matrix's dtype; None where it would not be smaller.
    """
    n_outputs, n_inputs = w_OI.shape
    if size is not None:
        rank = max(1, int(size * w_OI.size / (n_outputs + n_inputs))) if size < 1 else min(w_OI.shape)
    if rank is not None and rank * (n_outputs + n_inputs) >= w_OI.size:
        return None  # before the decomposition, which is the costly part
    u_OR1, s_R1, v_R1I = np.linalg.svd(w_OI.astype(np.float64), full_matrices=False)
    if rank is None:
        rank = energy_rank(s_R1, 1.0 if energy is None else energy)
    if rank * (n_outputs + n_inputs) >= w_OI.size:
        return None
    root_R1 = np.sqrt(s_R1)
    left_OR = (u_OR1 * root_R1)[:, :rank].astype(w_OI.dtype)
    right_RI = (root_R1[:, None] * v_R1I)[:rank].astype(w_OI.dtype)
    return Product(Dense(np.ascontiguousarray(left_OR)), Dense(right_RI))


def energy_rank(singular_values: np.ndarray, energy: float) -> int:
    """Return the smallest rank whose squared singular values hold a share of all.

    Parameters
    ----------
    singular_values : ndarray of float, (R,)
        In falling order.
    energy : float
        The share, (0, 1].

    Returns
    -------
    int
        From 1 to R.
    """
    kept_R = np.cumsum(np.square(singular_values, dtype=np.float64))
    return min(len(kept_R), int(np.searchsorted(kept_R, energy * kept_R[-1])) + 1)
