"""What a student can learn from its teacher besides the teacher's answers: hidden states and attention maps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.compression.layer_map import Pair
from minislm.dispatch import ops
from minislm.layers.base import PLAIN, Grads, Tape


@dataclass(frozen=True)
class Target(ABC):
    """Something inside a student that is to be as it is inside the teacher.

    Parameters
    ----------
    pair : Pair
        The layers, whose results or saved arrays are watched.
    weight : float
        Of its loss.
    """

    pair: Pair
    weight: float

    @abstractmethod
    def loss(self, student: Any, own: Any, theirs: Any, keep_BT: np.ndarray | None, grads: Grads) -> float:
        """Compare, and put the gradient aside for the layer that it belongs to.

        Parameters
        ----------
        student : Model or Student
            Owns projections.
        own, theirs : object
            What the tapes of student and teacher saw.
        keep_BT : ndarray of bool, (B, T), optional
            Positions that are not padding; None: all.
        grads : Grads
            Receives the gradients.

        Returns
        -------
        float
            Its weight times the loss.
        """


@dataclass(frozen=True)
class HiddenTarget(Target):
    """The hidden states that a block returns.

    Parameters
    ----------
    pair : Pair
        The blocks.
    weight : float
        Of its loss.
    op : {"mean_square", "cosine_distance"}
        How they are compared.
    projection : int, optional
        Which of the student's projections leads to the teacher's width; None: the widths are equal.
    """

    op: str
    projection: int | None = None

    def loss(self, student: Any, own: Any, theirs: Any, keep_BT: np.ndarray | None, grads: Grads) -> float:
        """Compare all positions that are not padding."""
        keep = np.ones(own.shape[:2], bool) if keep_BT is None else keep_BT
        tape, x_ND = Tape(), own[keep]
        if self.projection is not None:
            projection = student.projections[self.projection]
            value, saved = getattr(ops, self.op)(projection.forward(x_ND, PLAIN, tape), theirs[keep])
            dx_ND = projection.backward(getattr(ops, f"{self.op}_backward")(self.weight, saved), tape, grads)
        else:
            value, saved = getattr(ops, self.op)(x_ND, theirs[keep])
            dx_ND = getattr(ops, f"{self.op}_backward")(self.weight, saved)
        dx = np.zeros_like(own)
        dx[keep] = dx_ND
        grads.aside(self.pair.student, dx)
        return self.weight * float(value)


@dataclass(frozen=True)
class AttentionTarget(Target):
    """An attention map: the distribution over the keys, for each query and head.

    Parameters
    ----------
    pair : Pair
        The attentions.
    weight : float
        Of its loss.
    """

    def loss(self, student: Any, own: Any, theirs: Any, keep_BT: np.ndarray | None, grads: Grads) -> float:
        """Compare all heads of all queries that are not padding."""
        (p_BHTS, saved), (target_BHTS, _) = (ops.attention_map(q, k, **o._asdict()) for q, k, *_, o in (own, theirs))
        rows, keep_N = (-1, p_BHTS.shape[3]), None
        if keep_BT is not None:
            keep_N = np.broadcast_to(keep_BT[:, None], p_BHTS.shape[:3]).reshape(-1)
        value, compared = ops.relative_entropy(p_BHTS.reshape(rows), target_BHTS.reshape(rows), keep_N=keep_N)
        dp_BHTS = ops.relative_entropy_backward(self.weight, compared).reshape(p_BHTS.shape)
        for side, gradient in zip(("query", "key", "bias"), ops.attention_map_backward(dp_BHTS, saved), strict=True):
            if gradient is not None:
                grads.aside(f"{self.pair.student}.{side}", gradient)
        return self.weight * float(value)
