"""RelativeBias: what attention adds to its scores, one number for each head and each bucket of distances."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.layers.base import Context, Grads, Layer, Tape
from minislm.weights.base import Weight


@dataclass(frozen=True)
class RelativeBias(Layer):
    """A table of biases, whose buckets are wider the farther away they are (Raffel et al., 2020, arXiv 1910.10683).

    Parameters
    ----------
    path : str
        Its name in the model.
    weight : Weight
        The table, buckets x H.
    max_distance : int
        From which on all distances share a bucket.
    causal : bool
        Whether keys after the query are hidden, so that all buckets are for those before it; else each side has half.
    """

    weight: Weight
    max_distance: int
    causal: bool

    def distances(self) -> np.ndarray:
        """List the distances of a key from its query, negative for a key before it.

        Returns
        -------
        ndarray of int64, (S1,)
            In the order of the columns that `ops.attention` wants.
        """
        return np.arange(-self.max_distance, self.max_distance + 1)

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Map distances (S1,) to biases (H, S1)."""
        buckets = self.buckets(x)
        if tape is not None:
            tape.push(self.path, buckets)
        return np.ascontiguousarray(self.weight.rows(buckets).T)

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Scatter the gradient (H, S1) to the buckets; distances have none, so `dy` itself is returned."""
        buckets = tape.take(self.path)
        drows = np.ascontiguousarray(dy.T)
        grads.add_weight(f"{self.path}.weight", self.weight, lambda: self.weight.rows_grads(buckets, drows))
        return dy

    def lower(self, x: int, program: Any) -> int:
        """Let attention that is biased add these numbers from now on; the stream in buffer `x` passes by."""
        program.bias_HS1 = self.forward(self.distances(), Context())
        return x

    def buckets(self, distances: np.ndarray) -> np.ndarray:
        """Tell which bucket each distance belongs to.

        Parameters
        ----------
        distances : ndarray of int, (S1,)
            How far a key is after its query.

        Returns
        -------
        ndarray of int64, (S1,)
            Rows of the table: half of a side's buckets hold one distance each, the others as many as grow with the
            logarithm. In float32, as published, because a rounding moves a border.
        """
        n_buckets, first = self.weight.shape[0], np.zeros(len(distances), np.int64)
        if self.causal:
            away = np.maximum(-distances, 0)
        else:
            n_buckets //= 2
            away, first = np.abs(distances), np.where(distances > 0, n_buckets, 0)
        n_exact = n_buckets // 2
        ratio = np.maximum(away, n_exact).astype(np.float32) / np.float32(n_exact)
        growth = np.log(ratio) / np.float32(math.log(self.max_distance / n_exact)) * np.float32(n_buckets - n_exact)
        far = np.minimum(n_exact + growth.astype(np.int64), n_buckets - 1)
        buckets: np.ndarray = first + np.where(away < n_exact, away, far)
        return buckets
