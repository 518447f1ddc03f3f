"""Affine: a gain and an offset where other models normalize."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.dispatch import ops
from minislm.layers.base import Context, Grads, Layer, Tape


@dataclass(frozen=True)
class Affine(Layer):
    """``y = w x + b``, entry by entry: NoNorm (Sun et al., 2020, arXiv 2004.02984, section 3.3).

    Parameters
    ----------
    path : str
        Its name in the model.
    weight, bias : ndarray of float, (D,)
        Gain and offset.
    """

    weight: np.ndarray
    bias: np.ndarray

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Map (..., D) to the same."""
        x_ND = x.reshape(-1, x.shape[-1])
        if tape is not None:
            tape.push(self.path, x_ND)
        y: np.ndarray = ops.add_bias(ops.scale(x_ND, self.weight), self.bias).reshape(x.shape)
        return y

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Return the gradient of the input, (..., D)."""
        dy_ND = dy.reshape(-1, dy.shape[-1])
        grads.add(f"{self.path}.bias", dy_ND.sum(axis=0))  # undo y = y + b
        grads.add(f"{self.path}.weight", (dy_ND * tape.take(self.path)).sum(axis=0))
        dx: np.ndarray = ops.scale(dy_ND, self.weight).reshape(dy.shape)  # undo y = w x
        return dx

    def lower(self, x: int, program: Any) -> int:
        """Append the product and the sum."""
        y = program.step("scale", (x,), constants=(self.weight,), width=self.weight.size)
        lowered: int = program.step("add_bias", (y,), constants=(self.bias,), width=self.bias.size)
        return lowered
