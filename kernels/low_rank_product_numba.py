"""The product with a matrix of low rank in one compiled pass over both factors."""

from __future__ import annotations

import numpy as np
from numba import void

from minislm.kernels import border
from minislm.kernels.jit import compiled, dot, reads, writes


def low_rank_product(
    x_NI: np.ndarray, right_RI: np.ndarray, left_OR: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1
) -> np.ndarray:
    """Same as `ops.low_rank.low_rank_product`."""
    x, right, left = (
        border.checked(x_NI, "x", 2),
        border.checked(right_RI, "right", 2),
        border.checked(left_OR, "left", 2),
    )
    border.same_shape(right, "right", (len(right), x.shape[1]))
    border.same_shape(left, "left", (len(left), len(right)))
    y = border.output(out, (len(x), len(left)), x, right, left)
    _product(x, right, left, y)
    return border.delivered(y, out)


@compiled(void(reads(2), reads(2), reads(2), writes(2)))
def _product(x_NI, right_RI, left_OR, y_NO):  # type: ignore[no-untyped-def]
    middle = np.empty(right_RI.shape[0], np.float32)
    for n in range(x_NI.shape[0]):
        for r in range(right_RI.shape[0]):
            middle[r] = dot(x_NI[n], right_RI[r])
        for o in range(left_OR.shape[0]):
            y_NO[n, o] = dot(middle, left_OR[o])
