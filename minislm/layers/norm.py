"""Normalization layers: parameters around `ops.norm`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.dispatch import ops
from minislm.layers.base import Context, Grads, Layer, Tape


@dataclass(frozen=True)
class LayerNorm(Layer):
    """Layer normalization of the last axis (`ops.layer_norm`).

    Parameters
    ----------
    path : str
        Its name in the model.
    weight : ndarray of float, (D,)
        Gain.
    bias : ndarray of float, (D,), optional
        Offset; None: none.
    eps : float
        Added to the variance.
    """

    weight: np.ndarray
    bias: np.ndarray | None
    eps: float

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Normalize (..., D)."""
        y_ND, saved = ops.layer_norm(x.reshape(-1, x.shape[-1]), self.weight, self._offset(), eps=self.eps)
        if tape is not None:
            tape.push(self.path, saved)
        normalized: np.ndarray = y_ND.reshape(x.shape)
        return normalized

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Return the gradient of the input, (..., D)."""
        dx_ND, dw_D, db_D = ops.layer_norm_backward(dy.reshape(-1, dy.shape[-1]), tape.take(self.path))
        grads.add(f"{self.path}.weight", dw_D)
        if self.bias is not None:
            grads.add(f"{self.path}.bias", db_D)
        dx: np.ndarray = dx_ND.reshape(dy.shape)
        return dx

    def lower(self, x: int, program: Any) -> int:
        """Append the normalization."""
        constants = (self.weight, self._offset())
        lowered: int = program.step("layer_norm", (x,), constants=constants, width=self.weight.size, eps=self.eps)
        return lowered

    def lower_parts(self, x: int, program: Any) -> int:
        """Append the normalization of each part of a row that is as wide as the gain.

        Parameters
        ----------
        x : int
            Buffer that holds the input.
        program : Program
            What is appended to.

        Returns
        -------
        int
            Buffer that holds the output.
        """
        return _lower_parts("layer_norm", x, (self.weight, self._offset()), self.eps, program)

    def _offset(self) -> np.ndarray:
        return np.zeros_like(self.weight) if self.bias is None else self.bias


@dataclass(frozen=True)
class RMSNorm(Layer):
    """Root-mean-square normalization of the last axis (`ops.rms_norm`).

    Parameters
    ----------
    path : str
        Its name in the model.
    weight : ndarray of float, (D,)
        Gain, without `offset`.
    eps : float
        Added to the mean square.
    offset : float
        Added to the stored gain: 1 where that counts from one, as Gemma's does.
    """

    weight: np.ndarray
    eps: float
    offset: float = 0.0

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Normalize (..., D)."""
        y_ND, saved = ops.rms_norm(x.reshape(-1, x.shape[-1]), self._gain(), eps=self.eps)
        if tape is not None:
            tape.push(self.path, saved)
        normalized: np.ndarray = y_ND.reshape(x.shape)
        return normalized

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Return the gradient of the input, (..., D)."""
        dx_ND, dw_D = ops.rms_norm_backward(dy.reshape(-1, dy.shape[-1]), tape.take(self.path))
        grads.add(f"{self.path}.weight", dw_D)
        dx: np.ndarray = dx_ND.reshape(dy.shape)
        return dx

    def lower(self, x: int, program: Any) -> int:
        """Append the normalization."""
        lowered: int = program.step("rms_norm", (x,), constants=(self._gain(),), width=self.weight.size, eps=self.eps)
        return lowered

    def lower_parts(self, x: int, program: Any) -> int:
        """Append the normalization of each part of a row that is as wide as the gain; as of `LayerNorm`.

        Parameters
        ----------
        x : int
            Buffer that holds the input.
        program : Program
            What is appended to.

        Returns
        -------
        int
            Buffer that holds the output.
        """
        return _lower_parts("rms_norm", x, (self._gain(),), self.eps, program)

    def _gain(self) -> np.ndarray:
        return self.weight + self.weight.dtype.type(self.offset) if self.offset else self.weight


def _lower_parts(norm: str, x: int, constants: tuple[np.ndarray, ...], eps: float, program: Any) -> int:
    """Append one op over all parts of all rows."""
    width = program.writer(x).width
    lowered: int = program.step("head_norm", (x,), constants=constants, width=width, eps=eps, norm=norm)
    return lowered


Norm = LayerNorm | RMSNorm
