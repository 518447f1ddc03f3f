"""Dense: every number stored as a float."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from minislm.dispatch import ops, runs_compiled
from minislm.ops.float_panels import pack_float_panels
from minislm.weights.base import Arrays, Weight
from minislm.weights.checks import check_array, check_names, claims_of_a_file, shape_of
from minislm.weights.mapped import release

DTYPES = ("float32", "float64", "float16", "bfloat16")


@dataclass(frozen=True, eq=False)
class Dense(Weight):
    """A matrix of floats. Sixteen-bit ones are storage only: they are widened to float32 as they multiply.

    Parameters
    ----------
    array : ndarray, (O, I), float32, float64, float16 or bfloat16
        The matrix.

    Raises
    ------
    UsageError
        Code ``unknown_dtype`` or ``bad_shape``.

    Examples
    --------
    >>> import numpy as np
    >>> weight = Dense(np.array([[1.0, 2.0]], np.float32))
    >>> weight.apply(np.array([[3.0, 4.0]], np.float32))
    array([[11.]], dtype=float32)
    """

    array: np.ndarray

    def __post_init__(self) -> None:
        check_array("the array of a Dense", self.array, (None, None), DTYPES)

    @property
    def shape(self) -> tuple[int, int]:
        """Logical (outputs, inputs)."""
        return self.array.shape[0], self.array.shape[1]

    @property
    def half(self) -> bool:
        """Whether a number takes 16 bits."""
        return self.array.itemsize == 2

    def apply(self, x_NI: np.ndarray) -> np.ndarray:
        """Return ``x @ W.T``, (N, O)."""
        if self.half:
            return _array(ops.half_product(x_NI, self.array))
        return _array(ops.linear(x_NI, self.array)[0])

    def apply_t(self, dy_NO: np.ndarray) -> np.ndarray:
        """Return ``dy @ W``, (N, I)."""
        if self.half:
            return _array(ops.half_product_t(dy_NO, self.array))
        return _array(ops.linear_dx(dy_NO, self.array))

    def grads(self, x_NI: np.ndarray, dy_NO: np.ndarray) -> Arrays:
        """Return ``dy.T @ x``, in float32 or float64 whatever the storage."""
        return {"": ops.linear_dw(dy_NO, x_NI)}

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return the rows `ids`, (N, I)."""
        return self._widened(ops.embedding(ids, self.array)[0])

    def rows_grads(self, ids: np.ndarray, dw_NI: np.ndarray) -> Arrays:
        """Return `dw_NI` added up by row."""
        return {"": ops.embedding_backward(dw_NI, (ids, len(self.array)))}

    def dense(self) -> np.ndarray:
        """Return the matrix, float32 or float64: the stored one itself unless that has 16 bits."""
        return self._widened(self.array)

    def arrays(self) -> Arrays:
        """Return the matrix under the empty name."""
        return {"": self.array}

    def trainable(self) -> tuple[str, ...]:
        """Return the empty name."""
        return ("",)

    def spec(self) -> dict[str, Any]:
        """Return type and shape; the dtype is the array's own."""
        return {"type": "dense", "shape": list(self.shape)}

    @classmethod
    def from_arrays(cls, spec: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Rebuild it over the given array."""
        check_names(spec, arrays, [""])
        with claims_of_a_file():
            check_array("the array of a Dense", arrays[""], shape_of(spec), DTYPES)
        return cls(arrays[""])

    def lower(self, slot: int, program: Any) -> int:
        """Append one step; in panels where a compiled kernel multiplies them."""
        if self._pays_panels():
            return self._lower_panels(slot, program)
        name = "half_product" if self.half else "linear"
        return int(program.step(name, (slot,), constants=(self.array,), width=self.shape[0]))

    def lower_rows(self, ids: int, program: Any) -> int:
        """Append one step, which copies rows of float32."""
        if self.array.dtype != np.float32:
            return super().lower_rows(ids, program)
        return int(program.step("embedding", (ids,), constants=(self.array,), width=self.shape[1]))

    def lower_affine(self, slot: int, b_O: np.ndarray, program: Any) -> int:
        """Append one step where it is in panels."""
        if self._pays_panels():
            return self._lower_panels(slot, program, b_O)
        return super().lower_affine(slot, b_O, program)

    def _pays_panels(self) -> bool:
        return self.array.dtype != np.float64 and runs_compiled("float_panel_product")

    def _lower_panels(self, slot: int, program: Any, *bias: np.ndarray) -> int:
        n_outputs = self.shape[0]
        constants = self._panels, *bias
        return int(
            program.step("float_panel_product", (slot,), constants=constants, width=n_outputs, n_outputs=n_outputs)
        )

    @functools.cached_property
    def _panels(self) -> np.ndarray:
        """The matrix as programs multiply it, made once for all of them; pages of a mapped file are let go."""
        panels = pack_float_panels(self.array)
        release(self.array)
        return panels

    def _widened(self, w_NI: np.ndarray) -> np.ndarray:
        return w_NI.astype(np.float32) if self.half else w_NI


def _array(result: Any) -> np.ndarray:
    """Say to the type checker what an op of unknown type returned."""
    array: np.ndarray = result
    return array
