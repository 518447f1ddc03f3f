"""Lora: a small trained update beside weights that stay as they are."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from minislm.compression.base import Method, Report, need, needed
from minislm.compression.parts import chosen
from minislm.compression.sparsity import frozen_as, thawed
from minislm.errors import UsageError
from minislm.training.loop import fit
from minislm.training.parameters import matching
from minislm.training.settings import TrainSettings
from minislm.weights.base import Weight
from minislm.weights.dense import Dense
from minislm.weights.product import Product
from minislm.weights.sum import Sum

if TYPE_CHECKING:
    from minislm.training.data import TrainingData


class Begun(NamedTuple):
    """A model with updates beside its weights, ready to be trained.

    Parameters
    ----------
    model : Model
        What `fit` is to train.
    settings : TrainSettings
        How: everything but the updates is frozen.
    start : Model
        The same with its Weights stored as they are to be in the end.
    paths : tuple of str
        The Weights with updates.
    """

    model: Any
    settings: TrainSettings
    start: Any
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Lora(Method):
    """Train an update of low rank for each chosen weight, and little else.

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
    also : str
        What is trained as it is besides the updates, such as the new heads of an encoder: `fnmatch` patterns over full
        array names, separated by commas; empty: nothing.
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
    also: str = ""
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
        begun = self.begin(model, where)
        result = fit(begun.model, needed(self, data), begun.settings, report=report, directory=directory)
        return self.end(result.model, begun)

    def begin(self, model: Any, where: str = "*") -> Begun:
        """Put updates beside weights, for whoever trains them by `fit`.

        Parameters
        ----------
        model : Model
            What they are for; it stays as it is.
        where : str
            As of `run`.

        Returns
        -------
        Begun
            What to train, and how.

        Raises
        ------
        UsageError
            Code ``contradicting_options``: a weight that could not be merged; ``pattern_matches_nothing``.
        """
        bases = chosen(model, where)
        for path, weight in bases.items() if self.merge else ():
            if not isinstance(weight, Dense):
                raise UsageError(
                    "contradicting_options",
                    f"lora: merging would make {path} dense, which is {weight.spec()['type']}; leave merge out",
                )
        rng = np.random.default_rng(self.seed)
        start = model.replaced({path: self._beside(weight, rng) for path, weight in bases.items()})
        learner = thawed(start)
        names = list(learner.parameters())
        whole = matching(names, self.also, "also")
        frozen = [name for name in names if name not in whole and not _is_update(name, bases)]
        freeze = ",".join([*frozen, self.training.freeze])
        return Begun(learner, dataclasses.replace(self.training, freeze=freeze), start, tuple(bases))

    def end(self, model: Any, begun: Begun) -> Any:
        """Return a trained model as `run` does.

        Parameters
        ----------
        model : Model
            ``begun.model``, trained.
        begun : Begun
            What `begin` returned.

        Returns
        -------
        Model
            Its Weights stored as they were, with their updates beside them or merged.
        """
        model = frozen_as(model, begun.start)
        if not self.merge:
            return model
        weights = model.weights()
        return model.replaced({path: Dense(weights[path].dense()) for path in begun.paths})

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
