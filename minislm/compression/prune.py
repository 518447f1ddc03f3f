"""Prune: the smallest weights set to zero, and only the others stored."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from minislm.compression.base import Method, Report, need
from minislm.compression.fitting import trained
from minislm.compression.parts import chosen, dense_matrix, leaves, with_leaves
from minislm.compression.sparsity import cubic, keep_blocks, keep_largest, keep_share, to_sparse
from minislm.errors import listed
from minislm.ops.panels import OUTPUTS
from minislm.training.settings import TrainSettings
from minislm.weights.base import Weight
from minislm.weights.masked import Masked

if TYPE_CHECKING:
    from minislm.training.data import TrainingData

SCOPES = ("matrix", "global")
SCHEDULES = ("once", "cubic")
BLOCKS = "16x32"
STORAGES = ("bitmap", "csr", BLOCKS)


@dataclass(frozen=True)
class Prune(Method):
    """Set the weights of smallest magnitude to zero, and store the others alone.

    Exactly one of `sparsity` and `pattern` says how many.

    Parameters
    ----------
    sparsity : float, optional
        Share of the weights set to zero, [0, 1).
    pattern : str, optional
        ``"n:m"``, such as ``"2:4"``: of every m neighbours along the inputs, n stay.
    scope : {"matrix", "global"}
        Whether `sparsity` holds for each matrix, or for all chosen ones together.
    schedule : {"once", "cubic"}
        Whether all zeros come at once, or gradually during training.
    ramp : float
        Share of the training steps, (0, 1], at whose end a cubic schedule reaches its `sparsity`.
    every : int
        Training steps between two prunings of a cubic schedule.
    training : TrainSettings, optional
        How to train what is left, zeros staying zeros; None: not at all.
    storage : {"bitmap", "csr", "16x32"}, optional
        How zeros of any place are stored; None: as a bitmap, which is smaller up to 31 zeros in 32 weights. With
        ``"16x32"`` whole blocks of 16 outputs and 32 inputs go, those with the least sum of squares: products of many
        rows gain from these alone.

    Notes
    -----
    With a cubic schedule the sparsity after step t of a ramp of n steps is ``s (1 - (1 - t / n)^3)`` (equation 1 of
    [1]_ with initial sparsity 0): fast while there is much to spare, slow towards the end. A weight once set to zero
    stays so. Exactly ``round(s O I)`` weights go; of equal magnitudes the first ones in storage order do. Factors of a
    product are pruned as matrices of their own. Fine-tuning keeps the mask in the matrix and in the gradient.
    The gradual schedule is made for long training: within a few hundred steps of fine-tuning, pruning at once came out
    as good or better.

    References
    ----------
    .. [1] Zhu, Gupta (2017), "To prune, or not to prune: exploring the efficacy of pruning for model compression",
       arXiv 1710.01878, equation 1.
    .. [2] Mishra et al. (2021), "Accelerating sparse deep neural networks", arXiv 2104.08378: the 2:4 pattern.

    Examples
    --------
    >>> Prune(pattern="2:4").schedule
    'once'
    """

    name: ClassVar[str] = "prune"

    sparsity: float | None = None
    pattern: str | None = None
    scope: str = "matrix"
    schedule: str = "once"
    ramp: float = 0.5
    every: int = 10
    training: TrainSettings | None = None
    storage: str | None = None

    def check(self) -> None:
        """Raise UsageError where an option is out of range, and where two contradict each other."""
        contradiction = "contradicting_options"
        need(
            (self.sparsity is None) != (self.pattern is None),
            self,
            "give exactly one of sparsity and pattern",
            contradiction,
        )
        need(self.sparsity is None or 0 <= self.sparsity < 1, self, f"sparsity must lie in [0, 1), not {self.sparsity}")
        if self.pattern is not None:
            found = re.fullmatch(r"(\d{1,3}):(\d{1,3})", self.pattern)
            need(
                found is not None and 0 < int(found[1]) < int(found[2]) <= 256,
                self,
                f"pattern must be n:m with 0 < n < m <= 256, not {self.pattern!r}",
            )
        need(self.scope in SCOPES, self, f"scope must be {listed(SCOPES)}, not {self.scope!r}")
        need(self.schedule in SCHEDULES, self, f"schedule must be {listed(SCHEDULES)}, not {self.schedule!r}")
        need(self.storage in (None, *STORAGES), self, f"storage must be {listed(STORAGES)}, not {self.storage!r}")
        need(0 < self.ramp <= 1, self, f"ramp must lie in (0, 1], not {self.ramp}")
        need(self.every >= 1, self, f"every must be at least 1, not {self.every}")
        for option, is_default in (
            ("scope", self.scope == "matrix"),
            ("schedule", self.schedule == "once"),
            ("storage", self.storage is None),
        ):
            need(
                self.pattern is None or is_default,
                self,
                f"{option}={getattr(self, option)!r} has no meaning with pattern={self.pattern!r}; leave one out",
                contradiction,
            )
        need(
            self.schedule == "once" or self.training is not None,
            self,
            "a cubic schedule runs during training; give `training`",
            contradiction,
        )

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
        """Return the model with its chosen weights sparse; see `Method.run`."""
        paths = tuple(chosen(model, where))
        for path in paths:
            for leaf in leaves(model.weights()[path]):
                n_outputs = len(dense_matrix(self, path, leaf))
                need(
                    self.storage != BLOCKS or n_outputs % OUTPUTS == 0,
                    self,
                    f"{path} has {n_outputs} outputs, and blocks need a multiple of {OUTPUTS}; leave it out",
                )
        model = self.pruned(model, paths, self._sparsity_after(0))
        if self.training is not None:
            model = trained(
                self,
                model,
                data,
                self.training,
                report=report,
                directory=directory,
                rewrite=self.rewrite(paths) if self.schedule == "cubic" else None,
            )
        if self.schedule == "cubic":
            model = self.pruned(model, paths, self.sparsity or 0.0)
        weights = model.weights()
        storage = self.pattern or self.storage or "bitmap"
        return model.replaced({path: to_sparse(weights[path], storage) for path in paths})

    def _sparsity_after(self, step: int) -> float:
        """Return the share of zeros that the schedule asks for after so many training steps."""
        if self.schedule == "once" or self.training is None:
            return self.sparsity or 0.0
        return cubic(step, max(1, round(self.ramp * self.training.steps)), self.sparsity or 0.0)

    def rewrite(self, paths: tuple[str, ...]) -> Callable[[int, Any], dict[str, Weight] | None]:
        """Make what training calls before each step of a gradual schedule.

        Parameters
        ----------
        paths : tuple of str
            Of the masked Weights.

        Returns
        -------
        callable
            Given the step, from 1, and the model: the Weights under smaller masks, or None where the schedule rests.
        """

        def further(step: int, model: Any) -> dict[str, Weight] | None:
            done = step - 1
            if done % self.every or self._sparsity_after(done) == self._sparsity_after(done - self.every):
                return None
            weights = self.pruned(model, paths, self._sparsity_after(done)).weights()
            return {path: weights[path] for path in paths}

        return further

    def pruned(self, model: Any, paths: tuple[str, ...], sparsity: float) -> Any:
        """Put new masks over weights; what is zero already is the first to go.

        Parameters
        ----------
        model : Model
            With Dense or Masked leaves at `paths`.
        paths : tuple of str
            Of Weights.
        sparsity : float
            Share of zeros; without meaning where there is a pattern.

        Returns
        -------
        Model
            With Masked leaves there.
        """
        weights = model.weights()
        matrices = [leaf.dense() for path in paths for leaf in leaves(weights[path])]
        keep = keep_blocks if self.storage == BLOCKS else keep_share
        if self.pattern is not None:
            masks = [keep_largest(matrix, self.pattern) for matrix in matrices]
        elif self.scope == "global":
            masks = keep(matrices, sparsity)
        else:
            masks = [keep([matrix], sparsity)[0] for matrix in matrices]
        new = map(Masked.from_dense, matrices, masks)
        return model.replaced({path: with_leaves(weights[path], new) for path in paths})
