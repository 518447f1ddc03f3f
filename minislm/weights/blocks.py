"""Blocks: a matrix as it lies in a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from minislm.dispatch import ops, runs_compiled
from minislm.errors import UnsupportedError, unknown
from minislm.ops.block_panels import pack_block_panels
from minislm.ops.blocks import BlockFormat, block_format_named
from minislm.ops.formats import format_named
from minislm.ops.tiles import row_tiles
from minislm.weights.base import Arrays, Weight
from minislm.weights.checks import check_array, check_names, claims_of_a_file, field_of, shape_of
from minislm.weights.mapped import release
from minislm.weights.panel_product import PanelProduct
from minislm.weights.quantized import Quantized

TWINS = {"q8_0": "int8-32", "q4_0": "int4-32"}
"""Block formats whose numbers a format of `minislm.ops.formats` holds too, in the same number of bytes."""

KNOWN = ("float", "int8-row", "int8-32")


@dataclass(frozen=True, eq=False)
class Blocks(Weight):
    """A matrix in blocks of scales and codes, kept as the bytes that a file holds. It is not trained.

    Parameters
    ----------
    format : BlockFormat
        What the bytes mean.
    n_inputs : int
        Columns of the matrix, which the bytes do not tell.
    blocks : ndarray, (O, P), uint8
        Rows of blocks; mapped, when they were read. Scales may be any float16, infinities too, as in a `Dense`.
    activations : {"float", "int8-row", "int8-32"}
        How inputs enter the product: as they are, or rounded to signed bytes.

    Raises
    ------
    UsageError
        Code ``size_mismatch``, ``bad_shape`` or ``unknown_dtype``.
    UnsupportedError
        Code ``unknown_activations``.

    Examples
    --------
    >>> import numpy as np
    >>> from minislm.ops.blocks import block_format_named
    >>> q8_0 = block_format_named("q8_0")
    >>> block = np.zeros(1, q8_0.record)
    >>> block["scale"], block["codes"][0, :2] = 0.5, (2, -3)
    >>> Blocks(q8_0, 2, block.view(np.uint8)[None]).dense()
    array([[ 1. , -1.5]], dtype=float32)
    """

    format: BlockFormat
    n_inputs: int
    blocks: np.ndarray
    activations: str = "float"

    def __post_init__(self) -> None:
        if self.activations not in KNOWN:
            raise unknown("activations", self.activations, KNOWN)
        check_array("the bytes of Blocks", self.blocks, (None, self.format.row_bytes(self.n_inputs)), ["uint8"])

    @property
    def shape(self) -> tuple[int, int]:
        """Logical (outputs, inputs)."""
        return len(self.blocks), self.n_inputs

    def apply(self, x_NI: np.ndarray) -> np.ndarray:
        """Return ``x @ W.T``, (N, O), its inputs rounded as `activations` says."""
        if (faster := self._faster) is not None:
            return faster.apply(x_NI)
        y_NO: np.ndarray = ops.block_product(x_NI, self.blocks, format=self.format)
        return y_NO

    def apply_t(self, dy_NO: np.ndarray) -> np.ndarray:
        """Return ``dy @ W``, (N, I)."""
        dx_NI: np.ndarray = ops.block_product_t(dy_NO, self.blocks, format=self.format, n_inputs=self.n_inputs)
        return dx_NI

    def grads(self, x_NI: np.ndarray, dy_NO: np.ndarray) -> Arrays:
        """Return nothing: it is not trained."""
        return {}

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return the rows `ids`, (N, I) float32."""
        w_NI: np.ndarray = ops.block_rows(ids, self.blocks, format=self.format, n_inputs=self.n_inputs)
        return w_NI

    def rows_grads(self, ids: np.ndarray, dw_NI: np.ndarray) -> Arrays:
        """Return nothing: it is not trained."""
        return {}

    def dense(self) -> np.ndarray:
        """Return the decoded matrix, float32."""
        return self.rows(np.arange(len(self.blocks)))

    def arrays(self) -> Arrays:
        """Return the blocks under the empty name."""
        return {"": self.blocks}

    def spec(self) -> dict[str, Any]:
        """Return type, shape, format and activations."""
        return {
            "type": "blocks",
            "shape": list(self.shape),
            "format": self.format.name,
            "activations": self.activations,
        }

    @classmethod
    def from_arrays(cls, spec: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Rebuild it over the given array."""
        format, activations = block_format_named(field_of(spec, "format", str)), field_of(spec, "activations", str)
        check_names(spec, arrays, [""])
        n_outputs, n_inputs = shape_of(spec)
        with claims_of_a_file():
            check_array("the bytes of Blocks", arrays[""], (n_outputs, format.row_bytes(n_inputs)), ["uint8"])
            return cls(format, n_inputs, arrays[""], activations)

    def with_activations(self, activations: str) -> Weight:
        """Return the same bytes with other activations; rounded ones not where a twin is wanted and is not exact."""
        if activations != "float" and self.format.name in TWINS:
            try:
                self._check_twin()
            except UnsupportedError:
                return self
        return replace(self, activations="int8-32" if activations == "int8" else activations)

    def lower(self, slot: int, program: Any) -> int:
        """Append the steps of what is faster, or one."""
        if (faster := self._faster) is not None:
            return faster.lower(slot, program)
        return int(
            program.step("block_product", (slot,), constants=(self.blocks,), width=len(self.blocks), format=self.format)
        )

    def lower_affine(self, slot: int, b_O: np.ndarray, program: Any) -> int:
        """Append the same with the bias."""
        if isinstance(faster := self._faster, PanelProduct):
            return faster.lower(slot, program, b_O)
        if faster is not None:
            return faster.lower_affine(slot, b_O, program)
        return super().lower_affine(slot, b_O, program)

    def cut(self, start: int, stop: int) -> Self:
        """Return some of the rows, copying nothing.

        Parameters
        ----------
        start, stop : int
            The first, and the one after the last.

        Returns
        -------
        Blocks
            Over the same bytes.
        """
        return replace(self, blocks=self.blocks[start:stop])

    def quantized(self) -> Quantized:
        """Copy the matrix to the `Quantized` that has the same numbers, for which there are faster kernels.

        Returns
        -------
        Quantized
            Of the format in `TWINS`: the same scales, codes and number of bytes in another order, and every value
            the same to the bit.

        Raises
        ------
        UnsupportedError
            Code ``no_exact_twin``: no such format has these numbers. That is so for q4_k and q6_k, whose scales have
            two levels, and where a scale is not finite or a code of q8_0 is -128, which no encoder writes.
        """
        self._check_twin()
        storage, records = format_named(TWINS[self.format.name]), self.format.blocks(self.blocks)
        scales_OJ, codes_OJZ = records["scale"].astype(np.float16), records["codes"]
        if storage.bits == 8:
            codes_OJZ = codes_OJZ.view(np.uint8) ^ 0x80  # from -128 is zero to 128 is zero
        else:
            low, high = codes_OJZ & 15, codes_OJZ >> 4
            codes_OJZ = np.concatenate((low, high), axis=2)
            codes_OJZ = codes_OJZ[:, :, 0::2] | codes_OJZ[:, :, 1::2] << 4
        codes_OP = codes_OJZ.reshape(len(self.blocks), -1)
        return Quantized(storage, self.n_inputs, codes_OP, scales_OJ, activations=self.activations)

    def _check_twin(self) -> None:
        """Raise UnsupportedError where there is no `quantized` twin."""
        twin = TWINS.get(self.format.name)
        if twin is None:
            raise UnsupportedError("no_exact_twin", f"{self.format} holds numbers that no format of groups can hold")
        for rows in row_tiles(len(self.blocks), self.blocks.shape[1]):
            records = self.format.blocks(self.blocks[rows])
            if not np.isfinite(records["scale"]).all() or (records["codes"] == -128).any():
                raise UnsupportedError(
                    "no_exact_twin", f"some blocks hold an infinite scale, or a code that {twin} does not have"
                )
        release(self.blocks)

    @cached_property
    def _faster(self) -> Weight | PanelProduct | None:
        """What multiplies in its place, where there is such; made once, and pages of a mapped file are let go."""
        compiled, rounded = runs_compiled("panel_product"), self.activations != "float"
        faster: Weight | PanelProduct
        if self.format.fields is not None:
            if not (compiled or rounded):
                return None
            op = "block_panel_product" if rounded else "decoded_block_panel_product"
            panels = pack_block_panels(self.blocks, n_inputs=self.n_inputs, format=self.format)
            faster = PanelProduct(self.shape, op, panels, self.format, self.activations)
        else:
            try:
                faster = self.quantized()
            except UnsupportedError:
                if rounded:
                    raise
                return None
            if compiled:
                faster = faster.repacked("panels")
        release(self.blocks)
        return faster
