"""What training makes small: a loss, and its gradient with respect to the logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.dispatch import ops
from minislm.layers.base import Context, Tape
from minislm.training.data import Batch


class Objective(ABC):
    """A loss over one batch. A frozen dataclass, so that a resumed run can compare its options."""

    @abstractmethod
    def loss(self, model: Any, batch: Batch, context: Context, tape: Tape) -> tuple[float, np.ndarray]:
        """Run the model forward and judge its logits.

        Parameters
        ----------
        model : Model
            Its `forward` leaves on `tape` what its `backward` takes.
        batch : Batch
            Inputs and targets.
        context : Context
            Handed on to the model; holds the key of dropout.
        tape : Tape
            Empty; handed on to the model.

        Returns
        -------
        loss : float
            Mean over the batch.
        dlogits_BTV : ndarray of float32, (B, T, V)
            Its gradient.
        """


@dataclass(frozen=True)
class NextToken(Objective):
    """Cross-entropy of the next token, in nats."""

    def loss(self, model: Any, batch: Batch, context: Context, tape: Tape) -> tuple[float, np.ndarray]:
        """Judge by the token that followed."""
        logits_BTV = model.forward(batch.ids_BT, context, tape)
        value, saved = ops.cross_entropy(logits_BTV.reshape(-1, logits_BTV.shape[-1]), batch.targets_BT.reshape(-1))
        dlogits_BTV = ops.cross_entropy_backward(1.0, saved).reshape(logits_BTV.shape)
        return value, dlogits_BTV


def next_token_loss(model: Any, batches: Iterable[Batch]) -> float:
    """Return the mean loss per token of a model over batches, in nats, without dropout.

    Parameters
    ----------
    model : Model
        To be judged.
    batches : iterable of Batch
        Such as `TokenWindows.evaluation` returns.

    Returns
    -------
    float
        Cross-entropy of the next token.
    """
    total, count = 0.0, 0
    for ids_BT, targets_BT in batches:
        logits_BTV = model.forward(ids_BT, Context())
        value, _ = ops.cross_entropy(logits_BTV.reshape(-1, logits_BTV.shape[-1]), targets_BT.reshape(-1))
        total += value * targets_BT.size
        count += targets_BT.size
    return total / count
