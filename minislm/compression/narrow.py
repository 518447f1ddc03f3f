"""Narrow: the heads and neurons that matter least removed, the others in a smaller model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from minislm.compression.base import Method, Report, need, needed
from minislm.compression.fitting import trained
from minislm.compression.importance import unit_importance
from minislm.compression.parts import chosen, dense_matrix
from minislm.compression.units import UnitGroup, unit_groups, without_units
from minislm.errors import UnsupportedError, UsageError, listed
from minislm.training.settings import TrainSettings

if TYPE_CHECKING:
    from minislm.training.data import TrainingData

SCOPES = ("layer", "global")


@dataclass(frozen=True)
class Narrow(Method):
    """Remove whole attention heads and feed-forward neurons; what is left is a dense model of a smaller Config.

    Parameters
    ----------
    heads : float
        Share of the heads that stays, (0, 1]. Where several queries share a key and value head, they stay or go with
        it; where all share one, the queries count alone.
    ff : float
        Share of the neurons of feed-forward parts that stays, (0, 1].
    scope : {"layer", "global"}
        Whether the shares hold for each block, or for all chosen blocks together; each keeps one at least.
    samples : int
        Examples to judge by, at most.
    training : TrainSettings, optional
        How to train what is left; None: not at all.

    Notes
    -----
    What goes is what the loss depends on least to first order: `minislm.compression.importance.unit_importance`. With
    the global scope, importances are divided by their Euclidean norm over the block before they are compared [1]_.
    Attention and cross-attention of one block share their sizes: their most important heads are counted together. A
    part whose matrices `where` does not name stays, and so do heads that share their biases by distance with those of
    other blocks, as T5's do; alone they are refused. It costs a forward and a backward pass over the examples.

    References
    ----------
    .. [1] Michel, Levy, Neubig (2019), "Are sixteen heads really better than one?", arXiv 1905.10650, section 4.
    .. [2] Molchanov et al. (2019), "Importance estimation for neural network pruning", arXiv 1906.10771.

    Examples
    --------
    >>> Narrow(heads=0.5, ff=0.5).scope
    'layer'
    """

    name: ClassVar[str] = "narrow"

    heads: float = 1.0
    ff: float = 1.0
    scope: str = "layer"
    samples: int = 64
    training: TrainSettings | None = None

    def check(self) -> None:
        """Raise UsageError where an option is out of range."""
        for option in ("heads", "ff"):
            share = getattr(self, option)
            need(0 < share <= 1, self, f"{option} must lie in (0, 1], not {share}")
        need(self.scope in SCOPES, self, f"scope must be {listed(SCOPES)}, not {self.scope!r}")
        need(self.samples >= 1, self, f"samples must be at least 1, not {self.samples}")

    @property
    def needs_data(self) -> bool:
        """Whether it removes or trains anything."""
        return min(self.heads, self.ff) < 1 or self.training is not None

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
        """Return a narrower model; see `Method.run`."""
        groups = self._groups(model, set(chosen(model, where)))
        if self.heads < 1 and self.ff == 1 and not any(group.kind == "heads" for group in unit_groups(model)):
            raise UnsupportedError(
                "heads_shared", "narrow: no head of this model can go, as all share biases with other blocks; narrow ff"
            )
        if groups:
            couplings = [coupling for group in groups for coupling in group.couplings]
            importance = unit_importance(model, needed(self, data), couplings, self.samples)
            counts = self.counts(groups, importance)
            kept = {
                coupling.path: most_important(importance[coupling.path], count)
                for group, count in zip(groups, counts, strict=True)
                for coupling in group.couplings
            }
            model = without_units(model, groups, kept)
        if self.training is None:
            return model
        return trained(self, model, data, self.training, report=report, directory=directory)

    def counts(self, groups: list[UnitGroup], importance: Mapping[str, np.ndarray]) -> list[int]:
        """Say how many units stay.

        Parameters
        ----------
        groups : list of UnitGroup
            Those that lose some.
        importance : mapping of str to ndarray
            Of the units of each coupling, by its path.

        Returns
        -------
        list of int
            For each group, at least 1.
        """
        if self.scope == "layer":
            return [max(1, round(getattr(self, group.kind) * group.n_units)) for group in groups]
        counts = [1] * len(groups)
        for kind in ("heads", "ff"):
            members = [i for i, group in enumerate(groups) if group.kind == kind]
            n_more = round(getattr(self, kind) * sum(groups[i].n_units for i in members)) - len(members)
            ranked = [(i, value) for i in members for value in _falling(groups[i], importance)[1:]]
            ranked.sort(key=lambda pair: -pair[1])
            for i, _ in ranked[: max(0, n_more)]:
                counts[i] += 1
        return counts

    def _groups(self, model: Any, named: set[str]) -> list[UnitGroup]:
        """Return the groups that lose units: those whose matrices are named, all of them dense."""
        weights = model.weights()
        groups = []
        for group in unit_groups(model):
            if getattr(self, group.kind) == 1 or not group.matrices & named:
                continue
            if left := sorted(group.matrices - named):
                raise UsageError(
                    "coupled_weights",
                    f"narrow: {sorted(group.matrices)} lose rows or columns together; `where` leaves out {left[0]}",
                )
            for path in sorted(group.matrices):
                dense_matrix(self, path, weights[path])
            groups.append(group)
        return groups


def most_important(importance: np.ndarray, count: int) -> np.ndarray:
    """Choose units.

    Parameters
    ----------
    importance : ndarray of float, (units,)
        Of each.
    count : int
        How many stay.

    Returns
    -------
    ndarray of int, (count,)
        In rising order; of equally important ones the first.

    Examples
    --------
    >>> most_important(np.array([0.5, 2.0, 0.0, 0.5]), 2)
    array([0, 1])
    """
    return np.sort(np.argsort(-importance, kind="stable")[:count])


def _falling(group: UnitGroup, importance: Mapping[str, np.ndarray]) -> list[float]:
    """Return what the first, second and further units of a group are worth, those of its couplings taken together."""
    total = np.zeros(group.n_units)
    for coupling in group.couplings:
        own = importance[coupling.path]
        total += np.sort(own)[::-1] / (np.linalg.norm(own) or 1.0)
    return total.tolist()
