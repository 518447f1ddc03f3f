"""Quantized: small whole numbers and their scales."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from minislm.dispatch import ops, runs_compiled
from minislm.errors import UsageError, unknown
from minislm.ops.formats import Format, format_named
from minislm.ops.quantized import ACTIVATION_GROUPS
from minislm.ops.tiles import row_tiles
from minislm.weights.base import Arrays, Weight
from minislm.weights.checks import check_array, check_names, claims_of_a_file, field_of, shape_of
from minislm.weights.mapped import release
from minislm.weights.panels import Panels

ACTIVATIONS = ("float", *ACTIVATION_GROUPS)
CHOICES = ("int8", *ACTIVATIONS)
"""What may be asked for: ``"int8"`` leaves the group to `activations_for`."""


def activations_for(format: Format, activations: str) -> str:
    """Choose how inputs are rounded where only ``"int8"`` is said.

    Parameters
    ----------
    format : Format
        Of the matrix.
    activations : str
        Any of `ACTIVATIONS`, or ``"int8"``.

    Returns
    -------
    str
        As asked, or for ``"int8"`` what costs the product of this format least: ``"int8-32"`` where it has groups,
        ``"int8-row"`` where a row has one scale.
    """
    if activations != "int8":
        return activations
    return "int8-32" if format.group else "int8-row"


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
    activations : {"float", "int8-row", "int8-32", "static"}
        How inputs enter the product: as they are, or rounded to signed bytes with one scale for each row, for every 32
        inputs, or for all of them. The rounded product is not linear; gradients pass through it as if it were.
    activation_scale : ndarray, (1,), float32, optional
        The one scale of static activations, found on data; inputs beyond 127 of its steps are clipped.

    Raises
    ------
    UsageError
        Code ``size_mismatch``, ``bad_shape``, ``unknown_dtype``, ``non_finite_weight`` or ``bad_activation_scale``.
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
    activation_scale: np.ndarray | None = None

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
        if (self.activation_scale is None) is (self.activations == "static"):
            raise UsageError("bad_activation_scale", "static activations need a scale, and no others take one")
        if self.activation_scale is not None:
            check_array("the scale of its activations", self.activation_scale, (1,), ["float32"])
            if not 0 <= self.activation_scale[0] < np.inf:
                raise UsageError(
                    "bad_activation_scale",
                    f"the scale of static activations must be finite and not negative, not {self.activation_scale[0]}",
                )

    @classmethod
    def nearest(
        cls,
        w_OI: np.ndarray,
        format_name: str,
        activations: str = "float",
        activation_scale: np.ndarray | None = None,
        fit: Callable[[Format, np.ndarray], tuple[np.ndarray, np.ndarray | None]] = Format.fit,
    ) -> Self:
        """Round a matrix to the nearest codes.

        Parameters
        ----------
        w_OI : ndarray, (O, I), any float dtype
            The matrix.
        format_name : str
            Such as ``"int4-32"``; see `minislm.ops.formats.format_named`.
        activations : {"float", "int8", "int8-row", "int8-32", "static"}
            How inputs will enter the product; of ``"int8"`` `activations_for` tells the group.
        activation_scale : ndarray, (1,), float32, optional
            The scale of static activations.
        fit : callable
            Chooses scales and zeros for some rows; by default such that nothing is clipped.

        Returns
        -------
        Quantized
            Every weight that is not clipped within half a step of its own.

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
            scales_OJ[rows], zeros = fit(storage, tile)
            codes_OP[rows] = storage.pack(storage.round(tile, scales_OJ[rows], zeros))
            if zeros_OJ is not None and zeros is not None:
                zeros_OJ[rows] = zeros
        activations = activations_for(storage, activations)
        return cls(storage, n_inputs, codes_OP, scales_OJ, zeros_OJ, activations, activation_scale)

    @property
    def shape(self) -> tuple[int, int]:
        """Logical (outputs, inputs)."""
        return len(self.codes), self.n_inputs

    @property
    def stored(self) -> tuple[np.ndarray, ...]:
        """The arrays of the matrix, in the order in which ops take them."""
        return (self.codes, self.scales) if self.zeros is None else (self.codes, self.scales, self.zeros)

    def apply(self, x_NI: np.ndarray) -> np.ndarray:
        """Return ``x @ W.T``, (N, O), its inputs rounded as `activations` says."""
        if x_NI.dtype == np.float32 and runs_compiled("panel_product"):
            return self._panels.apply(x_NI)
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
        """Return the codes under the empty name, ``scales``, and ``zeros`` and ``activation_scale`` where they are."""
        arrays = dict(zip(("", "scales", "zeros"), self.stored, strict=False))
        return arrays if self.activation_scale is None else {**arrays, "activation_scale": self.activation_scale}

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
        storage, activations = format_named(field_of(spec, "format", str)), field_of(spec, "activations", str)
        zeros, scale = [] if storage.symmetric else ["zeros"], ["activation_scale"] if activations == "static" else []
        check_names(spec, arrays, ["", "scales", *zeros, *scale])
        n_outputs, n_inputs = shape_of(spec)
        with claims_of_a_file():
            check_array("the codes of a Quantized", arrays[""], (n_outputs, storage.row_bytes(n_inputs)), ["uint8"])
            optional = arrays.get("zeros"), activations, arrays.get("activation_scale")
            return cls(storage, n_inputs, arrays[""], arrays["scales"], *optional)

    def with_activations(self, activations: str) -> Weight:
        """Return the same codes with other activations; those that are static already go with their scale."""
        chosen = activations_for(self.format, activations)
        return self if chosen == self.activations else replace(self, activations=chosen, activation_scale=None)

    def repacked(self, layout: str) -> Weight:
        """Return the same numbers in another memory layout.

        Parameters
        ----------
        layout : {"canonical", "panels"}
            `minislm.weights.panels.Panels` are what compiled kernels multiply. They are made once and kept; where this
            matrix lies in a mapped file, its pages are let go.

        Returns
        -------
        Weight
            Bit-exactly reversible.

        Raises
        ------
        UnsupportedError
            Code ``unknown_layout``.
        """
        if layout not in ("canonical", "panels"):
            raise unknown("layout", layout, ("canonical", "panels"))
        return self if layout == "canonical" else self._panels

    @functools.cached_property
    def _panels(self) -> Panels:
        panels = Panels.of(self)
        for array in self.stored:
            release(array)
        return panels

    def lower(self, slot: int, program: Any) -> int:
        """Append one step, or those of the panels."""
        if program.panels:
            return self._panels.lower(slot, program)
        name, options = self._product()
        return int(program.step(name, (slot,), constants=self.stored, width=len(self.codes), **options))

    def lower_affine(self, slot: int, b_O: np.ndarray, program: Any) -> int:
        """Append the same with the bias."""
        if program.panels:
            return self._panels.lower_affine(slot, b_O, program)
        return super().lower_affine(slot, b_O, program)

    def lower_rows(self, ids: int, program: Any) -> int:
        """Append one step, which decodes rows."""
        options = {"format": self.format, "n_inputs": self.n_inputs}
        return int(program.step("quantized_rows", (ids,), constants=self.stored, width=self.n_inputs, **options))

    def _product(self) -> tuple[str, dict[str, Any]]:
        """Return the op that `activations` asks for, and its options."""
        if self.activations == "float":
            return "quantized_product", {"format": self.format}
        options: dict[str, Any] = {"format": self.format, "activations": self.activations}
        if self.activation_scale is not None:
            options["activation_scale"] = float(self.activation_scale[0])
        return "quantized_product_int8", options
