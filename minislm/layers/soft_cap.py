"""SoftCap: numbers kept within a bound, smoothly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.dispatch import ops
from minislm.layers.base import Context, Grads, Layer, Tape


@dataclass(frozen=True)
class SoftCap(Layer):
    """``cap tanh(x / cap)``, nearly x where that is small (Gemma 2, 2024, arXiv 2408.00118, section 2).

    Parameters
    ----------
    path : str
        Its name in the model.
    cap : float
        The bound.
    """

    cap: float

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Map any shape to the same."""
        y, saved = ops.tanh(x / self.cap)
        if tape is not None:
            tape.push(self.path, saved)
        capped: np.ndarray = y * self.cap
        return capped

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Return the gradient of the input; both factors cancel."""
        dx: np.ndarray = ops.tanh_backward(dy, tape.take(self.path))
        return dx

    def lower(self, x: int, program: Any) -> int:
        """Append division, tanh and product."""
        width = program.writer(x).width
        h = program.step("tanh", (program.scaled(x, 1 / self.cap),), width=width)
        lowered: int = program.scaled(h, self.cap)
        return lowered
