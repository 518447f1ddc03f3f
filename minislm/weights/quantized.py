"""Quantized: small whole numbers and their scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from minislm.dispatch import ops
from minislm.errors import UsageError, unknown
from minislm.ops.formats import Format, format_named
from minislm.ops.quantized import ACTIVATION_GROUPS
from minislm.ops.tiles import row_tiles
from minislm.weights.base import Arrays, Weight
from minislm.weights.checks import check_array, check_names, claims_of_a_file, field_of, shape_of

ACTIVATIONS = ("float", *ACTIVATION_GROUPS)


@dataclass(frozen=True, eq=False)
class Quantized(Weight):
    """A matrix in a quantized storage format. It is not trained: `FakeQuantized` is, and becomes one.

    Parameters
    ----------
    format : Format
        What the arrays mean.
    n_inputs : int
        Columns of the matrix, which packed rows do not tell.
    codes : ndarray, (O, P), uint8
        Packed codes.
    scales : ndarray, (O, J), float16 (groups) or float32 (rows)
        Scale of each group.
    zeros : ndarray, (O, J), uint8, optional
        Code of zero in each group; exactly where the format is asymmetric.
    activations : {"float", "int8-row", "int8-32"}
        How inputs enter the product: as they are, or rounded to signed bytes with one scale for each row or for every
        32 inputs. The rounded product is not linear; gradients pass through it as if it were.

    Raises
    ------
    UsageError
        Code ``size_mismatch``, ``bad_shape``, ``unknown_dtype`` or ``non_finite_weight``.
    UnsupportedError
        Code ``unknown_activations``.

    Examples
    --------
    >>> import numpy as np
    >>> w_OI = np.array([[-0.8, 0.1, 0.45, 0.7]], np.float32)
    >>> weight = Quantized.nearest(w_OI, "int4")
    >>> weight.dense().round(3)
    array([[-0.8,  0.1,  0.4,  0.7]], dtype=float32)
    """

    format: Format
    n_inputs: int
    codes: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray | None = None
    activations: str = "float"

    def __post_init__(self) -> None:
        if self.activations not in ACTIVATIONS:
            raise unknown("activations", self.activations, ACTIVATIONS)
        storage, groups = self.format, self.format.n_groups(self.n_inputs)
        check_array("the codes of a Quantized", self.codes, (None, storage.row_bytes(self.n_inputs)), ["uint8"])
        check_array("its scales", self.scales, (len(self.codes), groups), [storage.scale_dtype.name])
        if not np.isfinite(self.scales).all():
            raise UsageError(
                "non_finite_weight", f"scales must be finite; {np.argwhere(~np.isfinite(self.scales))[0]} is not"
            )
        if (self.zeros is None) is not storage.symmetric:
            raise UsageError("size_mismatch", f"{storage} {'has no' if storage.symmetric else 'needs'} zeros")
        if self.zeros is not None:
            check_array("its zeros", self.zeros, (len(self.codes), groups), ["uint8"])

    @classmethod
    def nearest(cls, w_OI: np.ndarray, format_name: str, activations: str = "float") -> Self:
        """Round a matrix to the nearest codes, with scales that clip nothing.

        Parameters
        ----------
        w_OI : ndarray, (O, I), any float dtype
            The matrix.
        format_name : str
            Such as ``"int4-32"``; see `minislm.ops.formats.format_named`.
        activations : {"float", "int8-row", "int8-32"}
            How inputs will enter the product.

        Returns
        -------
        Quantized
            Every weight within half a step of its own.

        Raises
        ------
        DataError
            Code ``non_finite_weight`` or ``scale_overflow``.
        UnsupportedError
            Code ``unknown_format`` or ``unknown_activations``.
        """
        storage = format_named(format_name)
        n_outputs, n_inputs = w_OI.shape
        groups = storage.n_groups(n_inputs)
        codes_OP = np.empty((n_outputs, storage.row_bytes(n_inputs)), np.uint8)
        scales_OJ = np.empty((n_outputs, groups), storage.scale_dtype)
        zeros_OJ = None if storage.symmetric else np.empty((n_outputs, groups), np.uint8)
        for rows in row_tiles(n_outputs, 8 * n_inputs):
            tile = w_OI[rows] if w_OI.itemsize > 2 else w_OI[rows].astype(np.float32)
            scales_OJ[rows], zeros = storage.fit(tile)
            codes_OP[rows] = storage.pack(storage.round(tile, scales_OJ[rows], zeros))
            if zeros_OJ is not None and zeros is not None:
                zeros_OJ[rows] = zeros
        return cls(storage, n_inputs, codes_OP, scales_OJ, zeros_OJ, activations)

    @property
    def shape(self) -> tuple[int, int]:
        """Logical (outputs, inputs)."""
        return len(self.codes), self.n_inputs

    @property
    def stored(self) -> tuple[np.ndarray, ...]:
        """The arrays in the order in which ops take them."""
        return (self.codes, self.scales) if self.zeros is None else (self.codes, self.scales, self.zeros)

    def apply(self, x_NI: np.ndarray) -> np.ndarray:
        """Return ``x @ W.T``, (N, O), its inputs rounded as `activations` says."""
        name, options = self._product()
        result: np.ndarray = getattr(ops, name)(x_NI, *self.stored, **options)
        return result

    def apply_t(self, dy_NO: np.ndarray) -> np.ndarray:
        """Return ``dy @ W``, (N, I); gradients are never rounded."""
        result: np.ndarray = ops.quantized_product_t(dy_NO, *self.stored, format=self.format, n_inputs=self.n_inputs)
        return result

    def grads(self, x_NI: np.ndarray, dy_NO: np.ndarray) -> Arrays:
        """Return nothing: it is not trained."""
        return {}

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return the rows `ids`, (N, I) float32."""
        result: np.ndarray = ops.quantized_rows(ids, *self.stored, format=self.format, n_inputs=self.n_inputs)
        return result

    def rows_grads(self, ids: np.ndarray, dw_NI: np.ndarray) -> Arrays:
        """Return nothing: it is not trained."""
        return {}

    def dense(self) -> np.ndarray:
        """Return the decoded matrix, float32."""
        return self.rows(np.arange(len(self.codes)))

    def arrays(self) -> Arrays:
        """Return the codes under the empty name, ``scales``, and ``zeros`` where there are any."""
        return dict(zip(("", "scales", "zeros"), self.stored, strict=False))

    def spec(self) -> dict[str, Any]:
        """Return type, shape, format and activations."""
        return {
            "type": "quantized",
            "shape": list(self.shape),
            "format": self.format.name,
            "activations": self.activations,
        }

    @classmethod
    def from_arrays(cls, spec: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Rebuild it over the given arrays."""
        storage = format_named(field_of(spec, "format", str))
        check_names(spec, arrays, ["", "scales"] if storage.symmetric else ["", "scales", "zeros"])
        n_outputs, n_inputs = shape_of(spec)
        activations = field_of(spec, "activations", str)
        with claims_of_a_file():
            check_array("the codes of a Quantized", arrays[""], (n_outputs, storage.row_bytes(n_inputs)), ["uint8"])
            return cls(storage, n_inputs, arrays[""], arrays["scales"], arrays.get("zeros"), activations)

    def lower(self, slot: int, program: Any) -> int:
        """Append one step."""
        name, options = self._product()
        return int(program.step(name, (slot,), constants=self.stored, width=len(self.codes), **options))

    def _product(self) -> tuple[str, dict[str, Any]]:
        """Return the op that `activations` asks for, and its options."""
        if self.activations == "float":
            return "quantized_product", {"format": self.format}
        return "quantized_product_int8", {"format": self.format, "activations": self.activations}
