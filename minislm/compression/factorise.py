"""Factorise: a model of thin products trained from the start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from minislm.compression.base import Method, Report
from minislm.compression.fitting import trained
from minislm.compression.low_rank import LowRank, check_bound
from minislm.training.settings import TrainSettings

if TYPE_CHECKING:
    from minislm.training.data import TrainingData


@dataclass(frozen=True)
class Factorise(Method):
    """Train a model whose matrices are products of two thin ones from the start.

    The model given lends its config alone: the new one begins at random.

    Parameters
    ----------
    training : TrainSettings
        How to train.
    rank : int, optional
        As for `LowRank`; exactly one of rank, energy and size.
    energy : float, optional
        As for `LowRank`.
    size : float, optional
        As for `LowRank`.
    seed : int
        The random start is a function of it.

    Notes
    -----
    Spectral initialisation: a matrix is drawn as for a full model, and its truncated singular value decomposition, with
    the singular values split evenly, gives the factors. Their product then has the largest singular values that a full
    matrix would have begun with, which independent random factors have not.

    References
    ----------
    .. [1] Khodak, Tenenholtz, Mackey, Fusi (2021), "Initialization and regularization of factorized neural layers",
       arXiv 2105.01029, section 3.1.

    Examples
    --------
    >>> Factorise(TrainSettings(), rank=8).rank
    8
    """

    name: ClassVar[str] = "factorise"

    training: TrainSettings
    rank: int | None = None
    energy: float | None = None
    size: float | None = None
    seed: int = 0

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
        """Return a newly trained model of the same config; see `Method.run`."""
        fresh = type(model).create(model.config, self.seed)
        start = LowRank(self.rank, self.energy, self.size).run(fresh, where=where)
        return trained(self, start, data, self.training, report=report, directory=directory)
