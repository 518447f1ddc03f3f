"""Positions as sines and cosines: a layer without parameters."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.dispatch import ops
from minislm.layers.base import Context, Grads, Layer, Tape
from minislm.weights.dense import Dense


@dataclass(frozen=True)
class Sinusoids(Layer):
    """Vectors of positions from `ops.sinusoidal_positions`.

    Parameters
    ----------
    path : str
        Its name in the model.
    n_positions, width : int
        Positions that there are, and D.
    interleaved : bool
        Whether sines and cosines alternate, rather than follow each other.
    """

    n_positions: int
    width: int
    interleaved: bool = True

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Map positions (B, T) to vectors (B, T, D)."""
        rows: np.ndarray = _table(self.n_positions, self.width, self.interleaved)[x]
        return rows

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Return `dy` itself: positions have no gradient, and there is no parameter."""
        return dy

    def lower(self, x: int, program: Any) -> int:
        """Append the lookup of the positions in buffer `x`."""
        lowered: int = program.rows(Dense(_table(self.n_positions, self.width, self.interleaved)), x)
        return lowered


@functools.lru_cache(maxsize=8)
def _table(n_positions: int, width: int, interleaved: bool) -> np.ndarray:
    """Compute the vectors of all positions once."""
    table: np.ndarray = ops.sinusoidal_positions(n_positions, width, interleaved=interleaved)
    table.flags.writeable = False
    return table
