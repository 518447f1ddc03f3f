"""Lora: a small trained update beside weights that stay as they are."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from minislm.compression.base import Method, Report, need
from minislm.compression.fitting import trained
from minislm.compression.parts import chosen
from minislm.compression.sparsity import thawed
from minislm.errors import UsageError
from minislm.training.settings import TrainSettings
from minislm.weights.base import Weight
from minislm.weights.dense import Dense
from minislm.weights.product import Product
from minislm.weights.sum import Sum

if TYPE_CHECKING:
    from minislm.training.data import TrainingData


@dataclass(frozen=True)
class Lora(Method):
    """Train an update of low rank for each chosen weight, and nothing else.

    Parameters
    ----------
    training : TrainSettings
        How to train the updates; its `freeze` is added to what is frozen anyway.
    rank : int
        Inner size of the updates.
    alpha : float
        Scale of the updates, relative to the rank; the larger, the faster the start.
    merge : bool
        Whether the updates are added to their dense weights in the end. False: they stay beside them, whatever the
        storage of those: on quantized weights this is the only way to train at all.
    seed : int
        The random start is a function of it.

    Notes
    -----
    ``W' = W + B A`` with B (O x R) zero at first, so that training begins at W, and A (R x I) normal with standard
    deviation ``alpha / (rank sqrt(I))``. The original writes ``(alpha / rank) B A``; here the factor is part of A, and
    so of what is trained and stored. The optimizer keeps moments for ``R (O + I)`` numbers instead of ``O I``.

    References
    ----------
    .. [1] Hu et al. (2021), "LoRA: low-rank adaptation of large language models", arXiv 2106.09685, equation 3.
    .. [2] Dettmers et al. (2023), "QLoRA", arXiv 2305.14314: the update beside quantized weights.

    Examples
    --------
    >>> Lora(TrainSettings(steps=100), rank=4).alpha
    8.0
    """

    name: ClassVar[str] = "lora"

    training: TrainSettings
    rank: int = 8
    alpha: float = 8.0
    merge: bool = False
    seed: int = 0

    def check(self) -> None:
        """Raise UsageError where an option is out of range."""
        need(self.rank >= 1, self, f"rank must be at least 1, not {self.rank}")
        need(self.alpha > 0, self, f"alpha must be more than 0, not {self.alpha}")

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
        """Return the model with trained updates; see `Method.run`."""
        bases = chosen(model, where)
        for path, weight in bases.items() if self.merge else ():
            if not isinstance(weight, Dense):
                raise UsageError(
                    "contradicting_options",
                    f"lora: merging would make {path} dense, which is {weight.spec()['type']}; leave merge out",
                )
        rng = np.random.default_rng(self.seed)
        start = model.replaced({path: self._beside(weight, rng) for path, weight in bases.items()})
        frozen = [name for name in thawed(start).parameters() if not _is_update(name, bases)]
        freeze = ",".join([*frozen, self.training.freeze] if self.training.freeze else frozen)
        settings = dataclasses.replace(self.training, freeze=freeze)
        model = trained(self, start, data, settings, report=report, directory=directory)
        if not self.merge:
            return model
        weights = model.weights()
        return model.replaced({path: Dense(weights[path].dense()) for path in bases})

    def _beside(self, weight: Weight, rng: np.random.Generator) -> Weight:
        """Return a Weight with an update beside it that is zero as yet."""
        n_outputs, n_inputs = weight.shape
        scale = self.alpha / (self.rank * np.sqrt(n_inputs))
        a_RI = (scale * rng.standard_normal((self.rank, n_inputs))).astype(np.float32)
        return Sum(weight, Product(Dense(np.zeros((n_outputs, self.rank), np.float32)), Dense(a_RI)))


def _is_update(name: str, bases: dict[str, Weight]) -> bool:
    """Tell whether an array is a factor of an update that `Lora` put beside one of the bases."""
    path, _, factor = name.rpartition(".b.")
    return path in bases and factor in ("left", "right")
