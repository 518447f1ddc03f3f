"""Masked: a dense matrix some of whose entries are held at zero while the others are trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from minislm.dispatch import ops
from minislm.errors import UsageError
from minislm.ops.bits import pack_mask, unpack_mask
from minislm.weights.base import Arrays, Weight
from minislm.weights.checks import check_array, check_names, claims_of_a_file, shape_of
from minislm.weights.dense import Dense

DTYPES = ("float32", "float64")


@dataclass(frozen=True, eq=False)
class Masked(Weight):
    """``array * mask``, for training under a mask; `Sparse` is what is smaller and faster.

    Parameters
    ----------
    array : ndarray, (O, I), float32 or float64
        All entries; those that the mask drops keep what they held, unused and without a gradient.
    mask : ndarray, (O, P), uint8
        Packed bits (`minislm.ops.bits.pack_mask`), set where an entry is kept.

    Raises
    ------
    UsageError
        Code ``unknown_dtype``, ``bad_shape`` or ``size_mismatch``.

    Examples
    --------
    >>> import numpy as np
    >>> Masked.from_dense(np.array([[1.0, 2.0]]), np.array([[True, False]])).dense()
    array([[1., 0.]])
    """

    array: np.ndarray
    mask: np.ndarray

    def __post_init__(self) -> None:
        check_array("the array of a Masked", self.array, (None, None), DTYPES)
        check_array("its mask", self.mask, (len(self.array), -(-self.array.shape[1] // 8)), ["uint8"])

    @classmethod
    def from_dense(cls, w_OI: np.ndarray, mask_OI: np.ndarray) -> Self:
        """Put a mask on a matrix.

        Parameters
        ----------
        w_OI : ndarray, (O, I), float32 or float64
            The matrix.
        mask_OI : ndarray, (O, I), bool
            True where an entry is kept.

        Returns
        -------
        Masked
            Holds `w_OI` itself.

        Raises
        ------
        UsageError
            Code ``size_mismatch``: the two differ in shape.
        """
        if w_OI.shape != mask_OI.shape:
            raise UsageError("size_mismatch", f"a mask {mask_OI.shape} does not fit a matrix {w_OI.shape}")
        return cls(w_OI, pack_mask(mask_OI))

    @cached_property
    def kept(self) -> np.ndarray:
        """The mask itself, (O, I) bool."""
        return unpack_mask(self.mask, self.array.shape[1])

    @cached_property
    def effective(self) -> Dense:
        """The matrix under its mask, made once."""
        return Dense(np.where(self.kept, self.array, self.array.dtype.type(0)))

    @property
    def shape(self) -> tuple[int, int]:
        """Logical (outputs, inputs)."""
        return self.array.shape[0], self.array.shape[1]

    @property
    def n_parameters(self) -> int:
        """The entries that the mask keeps."""
        return int(np.count_nonzero(self.kept))

    def apply(self, x_NI: np.ndarray) -> np.ndarray:
        """Return ``x @ (array * mask).T``, (N, O)."""
        return self.effective.apply(x_NI)

    def apply_t(self, dy_NO: np.ndarray) -> np.ndarray:
        """Return ``dy @ (array * mask)``, (N, I)."""
        return self.effective.apply_t(dy_NO)

    def grads(self, x_NI: np.ndarray, dy_NO: np.ndarray) -> Arrays:
        """Return the masked gradient."""
        return self._masked(ops.linear_dw(dy_NO, x_NI))

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return the rows `ids`, (N, I)."""
        return self.effective.rows(ids)

    def rows_grads(self, ids: np.ndarray, dw_NI: np.ndarray) -> Arrays:
        """Return the masked gradient."""
        return self._masked(self.effective.rows_grads(ids, dw_NI)[""])

    def dense(self) -> np.ndarray:
        """Return the matrix under its mask."""
        return self.effective.array

    def arrays(self) -> Arrays:
        """Return the matrix under the empty name, and ``mask``."""
        return {"": self.array, "mask": self.mask}

    def trainable(self) -> tuple[str, ...]:
        """Return the empty name."""
        return ("",)

    def spec(self) -> dict[str, Any]:
        """Return type and shape."""
        return {"type": "masked", "shape": list(self.shape)}

    @classmethod
    def from_arrays(cls, spec: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Rebuild it over the given arrays."""
        check_names(spec, arrays, ["", "mask"])
        with claims_of_a_file():
            check_array("the array of a Masked", arrays[""], shape_of(spec), DTYPES)
            return cls(arrays[""], arrays["mask"])

    def lower(self, slot: int, program: Any) -> int:
        """Append one step, a dense one."""
        return self.effective.lower(slot, program)

    def _masked(self, dw_OI: np.ndarray) -> Arrays:
        return {"": np.where(self.kept, dw_OI, dw_OI.dtype.type(0))}
