"""Dropout as a layer: its randomness is a function of the pass's key and its own path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.dispatch import ops
from minislm.layers.base import Context, Grads, Layer, Tape
from minislm.ops.dropout import site


@dataclass(frozen=True)
class Dropout(Layer):
    """Zero a fraction of the elements while training (`ops.dropout`); the identity otherwise.

    Parameters
    ----------
    path : str
        Its name in the model, from which its randomness derives.
    rate : float
        Probability that an element is dropped, in [0, 1).
    """

    rate: float

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Drop elements of an array of any shape."""
        if context.dropout is None or self.rate == 0.0:
            y, saved = x, None
        else:
            y, saved = ops.dropout(x, rate=self.rate, key=(*context.dropout, site(self.path)))
        if tape is not None:
            tape.push(self.path, saved)
        return y

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Drop the same elements of the gradient."""
        saved = tape.take(self.path)
        if saved is None:
            return dy
        dx: np.ndarray = ops.dropout_backward(dy, saved)
        return dx

    def lower(self, x: int, program: Any) -> int:
        """Append nothing: a Program never drops."""
        return x
