"""FakeQuantized: a dense matrix that acts as it will once it is quantized, and is trained as if it were not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from minislm.dispatch import ops
from minislm.errors import UnsupportedError
from minislm.ops.formats import Format, format_named
from minislm.weights.base import Arrays, Weight
from minislm.weights.checks import check_array, check_names, claims_of_a_file, field_of, shape_of
from minislm.weights.dense import Dense
from minislm.weights.quantized import Quantized, activations_for

DTYPES = ("float32", "float64")


@dataclass(frozen=True, eq=False)
class FakeQuantized(Weight):
    """Quantization-aware training: straight-through gradients for the weights, LSQ's for the scales.

    Parameters
    ----------
    array : ndarray, (O, I), float32 or float64
        The trained weights.
    format : Format
        A symmetric one: a learned scale acts about a fixed zero.
    scales : ndarray, (O, J), float32 or float64
        The trained scales, more precise than they will be stored; every use rounds them first.

    Raises
    ------
    UsageError
        Code ``unknown_dtype``, ``bad_shape`` or ``size_mismatch``.
    UnsupportedError
        Code ``asymmetric_training``.

    Examples
    --------
    >>> import numpy as np
    >>> weight = FakeQuantized.nearest(np.array([[-0.8, 0.1, 0.45, 0.7]], np.float32), "int4")
    >>> weight.dense().round(3)
    array([[-0.8,  0.1,  0.4,  0.7]], dtype=float32)
    >>> bool((weight.dense() == weight.quantized().dense()).all())
    True
    """

    array: np.ndarray
    format: Format
    scales: np.ndarray

    def __post_init__(self) -> None:
        check_array("the array of a FakeQuantized", self.array, (None, None), DTYPES)
        check_array("its scales", self.scales, (len(self.array), self.format.n_groups(self.array.shape[1])), DTYPES)
        if not self.format.symmetric:
            raise UnsupportedError(
                "asymmetric_training",
                f"{self.format} stores a zero for each group, and only scales can be learned; take a symmetric format "
                f"such as {self.format.name.removeprefix('u')}",
            )

    @classmethod
    def nearest(cls, w_OI: np.ndarray, format_name: str) -> Self:
        """Begin with scales that clip nothing.

        Parameters
        ----------
        w_OI : ndarray, (O, I), float32 or float64
            The matrix.
        format_name : str
            Such as ``"int3"``; see `minislm.ops.formats.format_named`.

        Returns
        -------
        FakeQuantized
            Holds `w_OI` itself; its values are those of ``Quantized.nearest``.

        Raises
        ------
        DataError
            Code ``non_finite_weight`` or ``scale_overflow``.
        UnsupportedError
            Code ``unknown_format`` or ``asymmetric_training``.
        """
        storage = format_named(format_name)
        return cls(w_OI, storage, storage.fit(w_OI)[0].astype(np.float32))

    @cached_property
    def _forward(self) -> tuple[np.ndarray, Any]:
        """Values and what their backward needs, made once."""
        w_OI, saved = ops.fake_quantize(self.array, self.scales, format=self.format)
        return w_OI, saved

    @cached_property
    def effective(self) -> Dense:
        """The matrix as it will be once quantized."""
        return Dense(self._forward[0])

    @property
    def shape(self) -> tuple[int, int]:
        """Logical (outputs, inputs)."""
        return self.array.shape[0], self.array.shape[1]

    def quantized(self, activations: str = "float", activation_scale: np.ndarray | None = None) -> Quantized:
        """Return the storage that was trained for.

        Parameters
        ----------
        activations : {"float", "int8", "int8-row", "int8-32", "static"}
            How inputs will enter the product; of ``"int8"`` `activations_for` tells the group.
        activation_scale : ndarray, (1,), float32, optional
            The scale of static activations.

        Returns
        -------
        Quantized
            Its values equal those of this Weight bit for bit.

        Raises
        ------
        UnsupportedError
            Code ``unknown_activations``.
        """
        scales = self.format.stored(self.scales)
        codes = self.format.pack(self.format.round(self.array, scales, None))
        activations = activations_for(self.format, activations)
        return Quantized(self.format, self.shape[1], codes, scales, None, activations, activation_scale)

    def apply(self, x_NI: np.ndarray) -> np.ndarray:
        """Return ``x @ W.T``, (N, O), with the values to be stored."""
        return self.effective.apply(x_NI)

    def apply_t(self, dy_NO: np.ndarray) -> np.ndarray:
        """Return ``dy @ W``, (N, I), with the values to be stored."""
        return self.effective.apply_t(dy_NO)

    def grads(self, x_NI: np.ndarray, dy_NO: np.ndarray) -> Arrays:
        """Return the straight-through gradient of the weights and LSQ's of the scales."""
        return self._through(ops.linear_dw(dy_NO, x_NI))

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return the rows `ids`, (N, I), with the values to be stored."""
        return self.effective.rows(ids)

    def rows_grads(self, ids: np.ndarray, dw_NI: np.ndarray) -> Arrays:
        """Return the straight-through gradient of the weights and LSQ's of the scales."""
        return self._through(self.effective.rows_grads(ids, dw_NI)[""])

    def dense(self) -> np.ndarray:
        """Return the matrix with the values to be stored."""
        return self.effective.array

    def arrays(self) -> Arrays:
        """Return the trained weights under the empty name, and ``scales``."""
        return {"": self.array, "scales": self.scales}

    def trainable(self) -> tuple[str, ...]:
        """Return both names."""
        return ("", "scales")

    def spec(self) -> dict[str, Any]:
        """Return type, shape and format."""
        return {"type": "fake_quantized", "shape": list(self.shape), "format": self.format.name}

    @classmethod
    def from_arrays(cls, spec: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Rebuild it over the given arrays."""
        check_names(spec, arrays, ["", "scales"])
        storage = format_named(field_of(spec, "format", str))
        with claims_of_a_file():
            check_array("the array of a FakeQuantized", arrays[""], shape_of(spec), DTYPES)
            return cls(arrays[""], storage, arrays["scales"])

    def lower(self, slot: int, program: Any) -> int:
        """Append one step, a dense one."""
        return self.effective.lower(slot, program)

    def _through(self, dw_OI: np.ndarray) -> Arrays:
        """Carry the gradient of the values back to the weights and scales."""
        dw_OI, dscales_OJ = ops.fake_quantize_backward(dw_OI, self._forward[1])
        return {"": dw_OI, "scales": dscales_OJ}
