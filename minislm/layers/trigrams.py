"""Trigrams: the vector of a token made from narrower ones, its own and those of its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.layers.base import Context, Grads, Layer, Tape
from minislm.layers.linear import Linear


@dataclass(frozen=True)
class Trigrams(Layer):
    """A Linear over the next token's vector, the own and the one before (Sun et al., 2020, arXiv 2004.02984, A.1).

    Before the first token and after the last there are zeros. The reference takes the vector of the padding token for
    what follows the last one of a padded row, so that padding changes what it says; here it changes nothing.

    Parameters
    ----------
    path : str
        Its name in the model.
    transform : Linear
        Three times E to D.
    """

    transform: Linear

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Map (B, T, E) to (B, T, D)."""
        mask_BT = context.key_mask(x.shape[1])
        if tape is not None:
            tape.push(self.path, mask_BT)
        if mask_BT is not None:
            x = x * mask_BT[..., None]
        e = x.shape[-1]
        y = np.zeros((*x.shape[:2], 3 * e), x.dtype)
        y[:, :-1, :e] = x[:, 1:]
        y[:, :, e : 2 * e] = x
        y[:, 1:, 2 * e :] = x[:, :-1]
        return self.transform.forward(y, context, tape)

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Return the gradient of the input, (B, T, E)."""
        dy = self.transform.backward(dy, tape, grads)
        e = dy.shape[-1] // 3
        dx = dy[:, :, e : 2 * e].copy()
        dx[:, :-1] += dy[:, 1:, 2 * e :]  # undo y[:, 1:, 2 * e :] = x[:, :-1]
        dx[:, 1:] += dy[:, :-1, :e]  # undo y[:, :-1, :e] = x[:, 1:]
        mask_BT = tape.take(self.path)
        return dx if mask_BT is None else dx * mask_BT[..., None]

    def lower(self, x: int, program: Any) -> int:
        """Append the neighbours and the product."""
        width = 3 * program.writer(x).width
        return self.transform.lower(program.step("neighbours", (x,), width=width), program)
