"""Pooling: one vector for a whole text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.dispatch import ops
from minislm.layers.base import Context, Grads, Layer, Tape
from minislm.layers.linear import Linear

POOLER_ACTIVATIONS = ("tanh", "relu")


@dataclass(frozen=True)
class Pooling(Layer):
    """The vector of the first position, or the mean of all, and perhaps what a dense layer makes of it.

    Parameters
    ----------
    path : str
        Its name in the model.
    kind : {"first", "mean"}
        Which positions count; padding never does.
    dense : Linear, optional
        D to D, followed by the activation; None: neither.
    activation : {"tanh", "relu"}
        BERT's, or DistilBERT's.
    """

    kind: str
    dense: Linear | None
    activation: str = "tanh"

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Map the stream (B, T, D) to vectors (B, D)."""
        share_BT = self._shares(x, context)
        y_BD: np.ndarray = np.matmul(share_BT[:, None], x)[:, 0]
        if tape is not None:
            tape.push(self.path, share_BT)
        if self.dense is None:
            return y_BD
        y_BD, saved = getattr(ops, self.activation)(self.dense.forward(y_BD, context, tape))
        if tape is not None:
            tape.push(f"{self.path}.{self.activation}", saved)
        return y_BD

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Return the gradient of the stream, (B, T, D)."""
        if self.dense is not None:
            dy = getattr(ops, f"{self.activation}_backward")(dy, tape.take(f"{self.path}.{self.activation}"))
            dy = self.dense.backward(dy, tape, grads)
        share_BT = tape.take(self.path)
        dx: np.ndarray = share_BT[:, :, None] * dy[:, None]  # undo y = share x
        return dx

    def lower(self, x: int, program: Any) -> int:
        """Append the choice or mean, and the dense layer."""
        pooled: int = program.pool(x, self.kind)
        if self.dense is None:
            return pooled
        dense = self.dense.lower(pooled, program)
        lowered: int = program.step(self.activation, (dense,), width=self.dense.weight.shape[0])
        return lowered

    def _shares(self, x: np.ndarray, context: Context) -> np.ndarray:
        """Return how much of each position a text's vector takes, (B, T)."""
        n_rows, n_positions, _ = x.shape
        if self.kind == "first":
            kept_BT = np.tile(np.arange(n_positions) == 0, (n_rows, 1))
        else:
            mask_BT = context.key_mask(n_positions)
            kept_BT = np.ones((n_rows, n_positions), bool) if mask_BT is None else mask_BT
        share_BT: np.ndarray = kept_BT / np.maximum(kept_BT.sum(axis=1, keepdims=True), 1)
        return share_BT.astype(x.dtype)
