"""Panels: a quantized matrix laid out as compiled kernels multiply it; only in memory, never in files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from minislm.dispatch import ops
from minislm.errors import unknown
from minislm.ops.formats import Format
from minislm.ops.panels import LINE, OUTPUTS, n_blocks, pack_groups, unpack_groups, unpack_panels
from minislm.ops.tiles import row_tiles
from minislm.weights.base import Arrays, Weight
from minislm.weights.mapped import release
from minislm.weights.panel_product import PanelProduct

if TYPE_CHECKING:
    from minislm.weights.quantized import Quantized

ON_THE_WAY = 8  # bytes that stand in memory for each code of a tile while it is laid out


@dataclass(frozen=True, eq=False)
class Panels(Weight):
    """The numbers of a `Quantized` in the layout of `minislm.ops.panels`.

    It is described and saved as the `Quantized` that it was made of.

    Parameters
    ----------
    format : Format
        What the arrays mean.
    size : tuple of int
        Logical (outputs, inputs).
    lines : ndarray, (panels, blocks, bits, 64), uint8
        Codes.
    scales : ndarray, (panels, J, 16), float16 or float32
        Scale of each group.
    zeros : ndarray, (panels, J, 16), uint8, or None
        Code of zero in each group of an asymmetric format.
    activations : {"float", "int8-row", "int8-32", "static"}
        How inputs enter the product.
    activation_scale : ndarray, (1,), float32, or None
        Of static activations.
    """

    format: Format
    size: tuple[int, int]
    lines: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray | None
    activations: str
    activation_scale: np.ndarray | None

    @classmethod
    def of(cls, weight: Quantized) -> Self:
        """Lay a matrix out; pages of a mapped file are let go as they are read, so that it is not in memory twice.

        Parameters
        ----------
        weight : Quantized
            The matrix.

        Returns
        -------
        Panels
            The same numbers.
        """
        zeros = None if weight.zeros is None else pack_groups(weight.zeros)
        n_outputs, n_inputs = weight.shape
        lines = np.empty((-(-n_outputs // OUTPUTS), n_blocks(n_inputs), weight.format.bits, LINE), np.uint8)
        for some in row_tiles(len(lines), ON_THE_WAY * OUTPUTS * n_inputs):
            codes_OP = weight.codes[some.start * OUTPUTS : some.stop * OUTPUTS]
            lines[some] = ops.pack_panels(codes_OP, n_inputs=n_inputs, format=weight.format)
            release(codes_OP)
        further = zeros, weight.activations, weight.activation_scale
        return cls(weight.format, weight.shape, lines, pack_groups(weight.scales), *further)

    def repacked(self, layout: str) -> Weight:
        """Return the same numbers in another memory layout.

        Parameters
        ----------
        layout : {"canonical", "panels"}
            Canonical is the `Quantized`.

        Returns
        -------
        Weight
            Bit-exactly reversible.

        Raises
        ------
        UnsupportedError
            Code ``unknown_layout``.
        """
        if layout == "panels":
            return self
        if layout != "canonical":
            raise unknown("layout", layout, ["canonical", "panels"])
        return self._canonical()

    def _canonical(self) -> Quantized:
        """Undo `of`."""
        from minislm.weights.quantized import Quantized

        n_outputs, n_inputs = self.size
        codes_OP = np.empty((n_outputs, self.format.row_bytes(n_inputs)), np.uint8)
        for some in row_tiles(len(self.lines), OUTPUTS * n_inputs):
            rows = slice(some.start * OUTPUTS, min(some.stop * OUTPUTS, n_outputs))
            codes_OP[rows] = self.format.pack(
                unpack_panels(self.lines[some], rows.stop - rows.start, n_inputs, format=self.format)
            )
        zeros = None if self.zeros is None else unpack_groups(self.zeros, n_outputs)
        scales = unpack_groups(self.scales, n_outputs)
        return Quantized(self.format, n_inputs, codes_OP, scales, zeros, self.activations, self.activation_scale)

    @property
    def shape(self) -> tuple[int, int]:
        """Logical (outputs, inputs)."""
        return self.size

    def apply(self, x_NI: np.ndarray) -> np.ndarray:
        """Return ``x @ W.T``, (N, O), its inputs as `activations` says; where they are rounded, in float32."""
        return self._product.apply(x_NI)

    def apply_t(self, dy_NO: np.ndarray) -> np.ndarray:
        """Return ``dy @ W``, (N, I); gradients are never rounded."""
        return self._canonical().apply_t(dy_NO)

    def grads(self, x_NI: np.ndarray, dy_NO: np.ndarray) -> Arrays:
        """Return nothing: it is not trained."""
        return {}

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return the rows `ids`, (N, I) float32."""
        return self._canonical().rows(ids)

    def rows_grads(self, ids: np.ndarray, dw_NI: np.ndarray) -> Arrays:
        """Return nothing: it is not trained."""
        return {}

    def dense(self) -> np.ndarray:
        """Return the decoded matrix, float32."""
        return self._canonical().dense()

    def arrays(self) -> Arrays:
        """Return the arrays of the `Quantized`."""
        return self._canonical().arrays()

    def spec(self) -> dict[str, Any]:
        """Return the spec of the `Quantized`."""
        return {
            "type": "quantized",
            "shape": list(self.size),
            "format": self.format.name,
            "activations": self.activations,
        }

    @classmethod
    def from_arrays(cls, spec: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Lay out what describes a `Quantized`."""
        from minislm.weights.quantized import Quantized

        return cls.of(Quantized.from_arrays(spec, arrays))

    def with_activations(self, activations: str) -> Weight:
        """Return the `Quantized` with these activations."""
        return self._canonical().with_activations(activations)

    def lower(self, slot: int, program: Any) -> int:
        """Append the rounding, which all matrices that are alike in it share, and the product."""
        return self._product.lower(slot, program)

    def lower_affine(self, slot: int, b_O: np.ndarray, program: Any) -> int:
        """Append the same, the bias in one step with the product."""
        return self._product.lower(slot, program, b_O)

    @cached_property
    def _product(self) -> PanelProduct:
        """What multiplies."""
        op = "decoded_panel_product" if self.activations == "float" else "panel_product"
        arrays = self.lines, self.scales, self.zeros
        return PanelProduct(self.size, op, arrays, self.format, self.activations, self.activation_scale)
