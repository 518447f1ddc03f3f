"""How much a loss depends on each unit of a model, to first order."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from minislm.errors import DataError
from minislm.layers.base import Grads, Tape
from minislm.layers.coupling import Coupling
from minislm.training.data import TrainingData


def unit_importance(
    model: Any, data: TrainingData, couplings: Iterable[Coupling], samples: int
) -> dict[str, np.ndarray]:
    """Estimate how much a loss changes when a unit goes: the mean over examples of ``|sum of gradient x output|``.

    Parameters
    ----------
    model : Model
        Whose consumers of the units are dense.
    data : TrainingData
        Its examples to learn from are run one at a time, spread evenly; its objective is the loss.
    couplings : iterable of Coupling
        The units.
    samples : int
        How many examples, at most.

    Returns
    -------
    dict of str to ndarray
        For each coupling by its path, (units,) float64.

    Raises
    ------
    DataError
        Code ``non_finite_importance``.

    Notes
    -----
    If every output h of a unit is multiplied by a gate g, the loss changes with the gate, at g = 1, by ``sum h dh``
    over the unit's outputs and all positions [1]_. With the weights w of the Linears that read them, ``dw = dy' h`` and
    ``dh = dy w``, this sum is that of ``w dw`` over the columns of the unit: the weights' gradients are all it takes.
    The size is taken for each example by itself, so that opposite examples do not cancel.

    References
    ----------
    .. [1] Michel, Levy, Neubig (2019), "Are sixteen heads really better than one?", arXiv 1905.10650, section 4.1.
    .. [2] Molchanov, Mallya, Tyree, Frosio, Kautz (2019), "Importance estimation for neural network pruning",
       arXiv 1906.10771, section 3: the same for neurons.
    """
    couplings = tuple(couplings)
    data.train.check(model)
    consumers = {f"{linear}.weight" for coupling in couplings for linear in coupling.consumers}
    weights = {path: weight.dense() for path, weight in model.weights().items() if path in consumers}
    totals = {coupling.path: np.zeros(coupling.n_units) for coupling in couplings}
    n_examples = 0
    for batch in data.train.evaluation(1, samples):
        grads = Grads(consumers.__contains__)
        if not math.isfinite(data.objective.step(model, batch, batch.context(), Tape(), grads)):
            raise _not_finite("the loss is")
        n_examples += 1
        for coupling in couplings:
            change = np.zeros(coupling.n_units)
            for path in (f"{linear}.weight" for linear in coupling.consumers):
                change_I = (weights[path] * grads[path]).sum(axis=0, dtype=np.float64)
                change += change_I.reshape(coupling.n_units, -1).sum(axis=1)
            totals[coupling.path] += np.abs(change)
    for path, total in totals.items():
        if not np.isfinite(total).all():
            raise _not_finite(f"the gradients of {path} are")
    return {path: total / max(1, n_examples) for path, total in totals.items()}


def _not_finite(what: str) -> DataError:
    return DataError(
        "non_finite_importance",
        f"{what} not finite on the data. Go back to a checkpoint from before training diverged",
    )
