"""Linear: a Weight and, perhaps, a bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.dispatch import ops
from minislm.layers.base import Context, Grads, Layer, Tape
from minislm.weights.base import Weight


@dataclass(frozen=True)
class Linear(Layer):
    """An affine map of the last axis: ``y = x @ W.T + b``.

    Parameters
    ----------
    path : str
        Its name in the model.
    weight : Weight
        The matrix, O x I, however it is stored.
    bias : ndarray of float, (O,), optional
        Added to every row; None: no bias.
    """

    weight: Weight
    bias: np.ndarray | None = None

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Map (..., I) to (..., O)."""
        x_NI = x.reshape(-1, x.shape[-1])
        y_NO = self.weight.apply(x_NI)
        if self.bias is not None:
            y_NO = ops.add_bias(y_NO, self.bias, out=y_NO)
        if tape is not None:
            tape.push(self.path, x_NI)
        return y_NO.reshape(*x.shape[:-1], y_NO.shape[1])

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Map the output's gradient (..., O) to the input's (..., I)."""
        x_NI = tape.take(self.path)
        dy_NO = dy.reshape(-1, dy.shape[-1])
        if self.bias is not None:  # undo y = y + b
            grads.add(f"{self.path}.bias", dy_NO.sum(axis=0))
        grads.add_weight(f"{self.path}.weight", self.weight, lambda: self.weight.grads(x_NI, dy_NO))
        dx_NI = self.weight.apply_t(dy_NO)  # undo y = x @ W.T
        return dx_NI.reshape(*dy.shape[:-1], dx_NI.shape[1])

    def lower(self, x: int, program: Any) -> int:
        """Append the product and the bias."""
        if self.bias is None:
            return self.weight.lower(x, program)
        return self.weight.lower_affine(x, self.bias, program)
