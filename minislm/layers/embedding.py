"""Embedding: rows of a Weight looked up by id; the same Weight may give the logits (a tied head)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.layers.base import Context, Grads, Layer, Tape
from minislm.weights.base import Weight


@dataclass(frozen=True)
class Embedding(Layer):
    """A table of vectors.

    Parameters
    ----------
    path : str
        Its name in the model.
    weight : Weight
        The table, V x D, however it is stored.
    """

    weight: Weight

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Map ids (B, T) to vectors (B, T, D)."""
        ids_N = x.reshape(-1)
        if tape is not None:
            tape.push(self.path, ids_N)
        return self.weight.rows(ids_N).reshape(*x.shape, self.weight.shape[1])

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Scatter the gradient (B, T, D) to the rows used; ids have no gradient, so `dy` itself is returned."""
        ids_N = tape.take(self.path)
        dy_ND = dy.reshape(-1, dy.shape[-1])
        grads.add_weight(f"{self.path}.weight", self.weight, lambda: self.weight.rows_grads(ids_N, dy_ND))
        return dy

    def logits(self, x: np.ndarray, tape: Tape | None = None) -> np.ndarray:
        """Use the table as a tied head.

        Parameters
        ----------
        x : ndarray, (B, T, D)
            Last hidden states.
        tape : Tape, optional
            As in `forward`.

        Returns
        -------
        ndarray, (B, T, V)
            Logits.
        """
        x_ND = x.reshape(-1, x.shape[-1])
        if tape is not None:
            tape.push(f"{self.path}.logits", x_ND)
        return self.weight.apply(x_ND).reshape(*x.shape[:-1], self.weight.shape[0])

    def logits_backward(self, dlogits: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Undo `logits`.

        Parameters
        ----------
        dlogits : ndarray, (B, T, V)
            Gradient of the logits.
        tape, grads : Tape, Grads
            As in `backward`.

        Returns
        -------
        ndarray, (B, T, D)
            Gradient of the last hidden states.
        """
        x_ND = tape.take(f"{self.path}.logits")
        dy_NV = dlogits.reshape(-1, dlogits.shape[-1])
        grads.add_weight(f"{self.path}.weight", self.weight, lambda: self.weight.grads(x_ND, dy_NV))
        return self.weight.apply_t(dy_NV).reshape(*dlogits.shape[:-1], self.weight.shape[1])

    def lower(self, x: int, program: Any) -> int:
        """Append the lookup of the ids in buffer `x`."""
        lowered: int = program.rows(self.weight, x)
        return lowered
