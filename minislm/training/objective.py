"""What training makes small: a loss, and its gradient with respect to what the model returned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping
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

    def judge(self, model: Any, batches: Iterable[Batch]) -> float:
        """Return the mean loss of a token."""
        total, count = 0.0, 0
        for batch in batches:
            value, _ = _cross_entropy(model.forward(batch.ids_BT, batch.context()), batch.targets_BT)
            n_judged = _n_judged(batch.targets_BT)
            total += value * n_judged
            count += n_judged
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
            raise UsageError("bad_option", f"there is no head {strange[0]!r} to weigh; the model has {sorted(outputs)}")
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


def _n_judged(targets: Any) -> int:
    return int((targets != NOT_JUDGED).sum())
