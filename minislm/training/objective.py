"""What training makes small: a loss, and its gradient with respect to what the model returned."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from minislm.dispatch import ops
from minislm.errors import ConfigError, UsageError
from minislm.layers.base import Grads, Tape

if TYPE_CHECKING:
    from minislm.layers.base import Context
    from minislm.training.data import Batch

NOT_JUDGED = -1  # a target or label that does not count
LOGITS_BYTES, LEAST_ROWS = 1 << 23, 512  # logits that are there at a time, and of how many rows at least


class Objective(ABC):
    """A loss over one batch. A frozen dataclass, so that a resumed run can compare its options."""

    @abstractmethod
    def loss(self, model: Any, batch: Batch, context: Context, tape: Tape, grads: Grads) -> tuple[float, Any]:
        """Run the model forward and judge what it returns.

        Parameters
        ----------
        model : Model
            Its `forward` leaves on `tape` what its `backward` takes.
        batch : Batch
            Inputs, and what they are judged by.
        context : Context
            Of the batch, with the key of dropout; handed on to the model.
        tape : Tape
            Empty; handed on to the model.
        grads : Grads
            Where a loss that judges what lies inside the model puts gradients aside for `Model.backward`.

        Returns
        -------
        loss : float
            Mean over the batch.
        dy : ndarray or dict of str to ndarray
            Its gradient, as `Model.backward` takes it.
        """

    def step(self, model: Any, batch: Batch, context: Context, tape: Tape, grads: Grads) -> float:
        """Run the model forward, judge it, and run it backward.

        Parameters
        ----------
        model : Model
            The model.
        batch : Batch
            Inputs, and what they are judged by.
        context : Context
            Of the batch, with the key of dropout.
        tape : Tape
            Empty; empty again in the end, unless the loss is not finite: then nothing goes backward.
        grads : Grads
            Where the gradients of parameters are added.

        Returns
        -------
        float
            The loss, a mean over the batch.
        """
        value, dy = self.loss(model, batch, context, tape, grads)
        if math.isfinite(value):
            model.backward(dy, tape, grads)
        return value

    @abstractmethod
    def judge(self, model: Any, batches: Iterable[Batch]) -> float:
        """Return the validation loss of a model, without dropout.

        Parameters
        ----------
        model : Model
            To be judged.
        batches : iterable of Batch
            Such as `Examples.evaluation` yields.

        Returns
        -------
        float
            In nats, the lower the better; weighs every judged token or label alike, in whichever batch it stands.
        """


@dataclass(frozen=True)
class NextToken(Objective):
    """Cross-entropy of the next token, in nats: for decoders, and for encoder-decoders given their source.

    Parameters
    ----------
    label_smoothing : float
        Share of each target that is spread evenly over the vocabulary, [0, 1); the validation loss has none.

    Raises
    ------
    ConfigError
        Code ``config_invalid``: out of range.
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError("config_invalid", f"label_smoothing must lie in [0, 1), not {self.label_smoothing}")

    def loss(self, model: Any, batch: Batch, context: Context, tape: Tape, grads: Grads) -> tuple[float, Any]:
        """Judge by the token that followed."""
        logits_BTV = model.forward(batch.ids_BT, context, tape)
        value, saved = _cross_entropy(logits_BTV, batch.targets_BT, self.label_smoothing)
        return value, ops.cross_entropy_backward(1.0, saved).reshape(logits_BTV.shape)

    def step(self, model: Any, batch: Batch, context: Context, tape: Tape, grads: Grads) -> float:
        """Judge some rows after the other, so that the logits of few rows are there at a time [1]_.

        References
        ----------
        .. [1] Hsu et al. (2024), "Liger Kernel", arXiv 2410.10989, section 3.2: cross-entropy fused with the linear
           map before it.
        """
        h_BTD = model.hidden(batch.ids_BT, context, tape)
        h_ND, targets_N = _flat(h_BTD, batch.targets_BT)
        dh_ND = np.empty_like(h_ND)
        n_judged, total = max(1, _n_judged(targets_N)), 0.0
        for rows in _pieces(model, h_ND):
            of_rows = Tape()
            logits_N1V = model.logits(h_ND[rows], context, of_rows)
            value, saved = _cross_entropy(logits_N1V, targets_N[rows], self.label_smoothing)
            share = _n_judged(targets_N[rows]) / n_judged
            total += share * value
            dh_ND[rows] = model.logits_backward(ops.cross_entropy_backward(share, saved), of_rows, grads)
        if math.isfinite(total):
            model.hidden_backward(dh_ND.reshape(h_BTD.shape), tape, grads)
        return total

    def judge(self, model: Any, batches: Iterable[Batch]) -> float:
        """Return the mean loss of a token."""
        total, count = 0.0, 0
        for batch in batches:
            h_BTD = model.hidden(batch.ids_BT, batch.context())
            h_ND, targets_N = _flat(h_BTD, batch.targets_BT)
            for rows in _pieces(model, h_ND):
                value, _ = _cross_entropy(model.logits(h_ND[rows]), targets_N[rows])
                total += value * _n_judged(targets_N[rows])
            count += _n_judged(targets_N)
        return total / count


@dataclass(frozen=True)
class Tasks(Objective):
    """Weighted sum of the cross-entropies of an encoder's heads, in nats.

    A head that a batch has no labels for is left out there. The ends of a span are two choices among positions.

    Parameters
    ----------
    weights : mapping of str to float
        By the names of heads; one that is not named weighs 1.
    """

    weights: Mapping[str, float] = field(default_factory=dict)

    def loss(self, model: Any, batch: Batch, context: Context, tape: Tape, grads: Grads) -> tuple[float, Any]:
        """Judge each head by its labels."""
        outputs = model.forward(batch.ids_BT, context, tape)
        if strange := sorted(self.weights.keys() - outputs.keys()):
            raise UsageError(
                "bad_option", f"there is no head {strange[0]!r} to weigh; the model has {', '.join(sorted(outputs))}"
            )
        total, doutputs = 0.0, {}
        for name, labels in batch.labels.items():
            weight = self.weights.get(name, 1.0)
            value, saved = _cross_entropy(outputs[name], labels)
            total += weight * value
            doutputs[name] = ops.cross_entropy_backward(weight, saved).reshape(outputs[name].shape)
        return total, doutputs

    def judge(self, model: Any, batches: Iterable[Batch]) -> float:
        """Return the weighted sum of each head's mean loss of a label."""
        totals: dict[str, float] = defaultdict(float)
        counts: dict[str, int] = defaultdict(int)
        for batch in batches:
            outputs = model.forward(batch.ids_BT, batch.context())
            for name, labels in batch.labels.items():
                value, _ = _cross_entropy(outputs[name], labels)
                n_judged = _n_judged(labels)
                totals[name] += value * n_judged
                counts[name] += n_judged
        return sum(self.weights.get(name, 1.0) * totals[name] / max(counts[name], 1) for name in totals)


def _cross_entropy(logits: np.ndarray, targets: Any, label_smoothing: float = 0.0) -> tuple[float, Any]:
    """Judge logits (..., V) by targets (...), those that are `NOT_JUDGED` left out."""
    logits_NV = logits.reshape(-1, logits.shape[-1])
    judged: tuple[float, Any] = ops.cross_entropy(
        logits_NV, targets.reshape(-1), ignore=NOT_JUDGED, label_smoothing=label_smoothing
    )
    return judged


def _flat(h_BTD: np.ndarray, targets_BT: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return hidden states (N, D) and targets (N,)."""
    return h_BTD.reshape(-1, h_BTD.shape[-1]), targets_BT.reshape(-1)


def _pieces(model: Any, h_ND: np.ndarray) -> Iterator[slice]:
    """Cut the rows so that the logits of a piece take `LOGITS_BYTES`, or are those of `LEAST_ROWS`."""
    n_rows = max(LEAST_ROWS, LOGITS_BYTES // (model.config.vocab_size * h_ND.itemsize))
    return (slice(first, first + n_rows) for first in range(0, len(h_ND), n_rows))


def _n_judged(targets: Any) -> int:
    return int((targets != NOT_JUDGED).sum())
