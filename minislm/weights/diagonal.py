"""Diagonal: one factor for each channel. On the right of a product it scales inputs, on the left outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from minislm.dispatch import ops
from minislm.weights.base import Arrays, Weight
from minislm.weights.checks import check_array, check_names, claims_of_a_file, shape_of

DTYPES = ("float32", "float64")


@dataclass(frozen=True, eq=False)
class Diagonal(Weight):
    """A square matrix with nothing beside its diagonal.

    Parameters
    ----------
    array : ndarray, (I,), float32 or float64
        The diagonal.

    Raises
    ------
    UsageError
        Code ``unknown_dtype`` or ``bad_shape``.

    Examples
    --------
    >>> import numpy as np
    >>> Diagonal(np.array([2.0, 3.0])).apply(np.array([[1.0, 10.0]]))
    array([[ 2., 30.]])
    """

    array: np.ndarray

    def __post_init__(self) -> None:
        check_array("the array of a Diagonal", self.array, (None,), DTYPES)

    @property
    def shape(self) -> tuple[int, int]:
        """Logical (outputs, inputs), which are equal."""
        return len(self.array), len(self.array)

    @property
    def n_parameters(self) -> int:
        """Its entries."""
        return len(self.array)

    def apply(self, x_NI: np.ndarray) -> np.ndarray:
        """Return `x_NI` with its columns scaled."""
        y_NI: np.ndarray = ops.scale(x_NI, self.array)
        return y_NI

    def apply_t(self, dy_NO: np.ndarray) -> np.ndarray:
        """Return `dy_NO` with its columns scaled: a diagonal is its own transpose."""
        return self.apply(dy_NO)

    def grads(self, x_NI: np.ndarray, dy_NO: np.ndarray) -> Arrays:
        """Return ``sum_n x[n, i] * dy[n, i]``."""
        return {"": np.einsum("ni,ni->i", x_NI, dy_NO)}

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return rows that are zero save in one place, (N, I)."""
        w_NI = np.zeros((len(ids), len(self.array)), self.array.dtype)
        w_NI[np.arange(len(ids)), ids] = self.array[ids]
        return w_NI

    def rows_grads(self, ids: np.ndarray, dw_NI: np.ndarray) -> Arrays:
        """Return what reached those places, added up."""
        ds_I = np.zeros(len(self.array), dw_NI.dtype)
        np.add.at(ds_I, ids, dw_NI[np.arange(len(ids)), ids])
        return {"": ds_I}

    def dense(self) -> np.ndarray:
        """Return the square matrix."""
        return np.diag(self.array)

    def arrays(self) -> Arrays:
        """Return the diagonal under the empty name."""
        return {"": self.array}

    def trainable(self) -> tuple[str, ...]:
        """Return the empty name."""
        return ("",)

    def spec(self) -> dict[str, Any]:
        """Return type and shape."""
        return {"type": "diagonal", "shape": list(self.shape)}

    @classmethod
    def from_arrays(cls, spec: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Rebuild it over the given array."""
        check_names(spec, arrays, [""])
        n_outputs, n_inputs = shape_of(spec)
        with claims_of_a_file():
            check_array("the array of a Diagonal", arrays[""], (n_inputs,), DTYPES)
            check_array("the array of a Diagonal", arrays[""], (n_outputs,), DTYPES)
        return cls(arrays[""])

    def lower(self, slot: int, program: Any) -> int:
        """Append one step."""
        return int(program.step("scale", (slot,), constants=(self.array,), width=len(self.array)))
