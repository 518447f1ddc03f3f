"""TwoLevelPanels: a matrix of two levels laid out as compiled kernels multiply it; only in memory, never in files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.dispatch import ops
from minislm.ops.block_panels import BlockPanels, pack_block_panels
from minislm.ops.blocks import BlockFormat
from minislm.ops.panels import RoundedRows
from minislm.ops.quantized import ACTIVATION_GROUPS


@dataclass(frozen=True, eq=False)
class TwoLevelPanels:
    """What multiplies in place of `Blocks` of q4_k or q6_k.

    Parameters
    ----------
    format : BlockFormat
        What the arrays mean.
    size : tuple of int
        Logical (outputs, inputs).
    panels : BlockPanels
        The arrays.
    activations : {"float", "int8-row", "int8-32"}
        How inputs enter the product.
    """

    format: BlockFormat
    size: tuple[int, int]
    panels: BlockPanels
    activations: str

    @classmethod
    def of(cls, blocks_OP: np.ndarray, n_inputs: int, format: BlockFormat, activations: str) -> TwoLevelPanels:
        """Lay a matrix out.

        Parameters
        ----------
        blocks_OP : ndarray, (O, P), uint8
            Rows of blocks.
        n_inputs : int
            Columns of the matrix.
        format : BlockFormat
            What the bytes mean.
        activations : str
            How inputs will enter the product.

        Returns
        -------
        TwoLevelPanels
            The same numbers.
        """
        panels = pack_block_panels(blocks_OP, n_inputs=n_inputs, format=format)
        return cls(format, (len(blocks_OP), n_inputs), panels, activations)

    def apply(self, x_NI: np.ndarray) -> np.ndarray:
        """Multiply rows by the transposed matrix.

        Parameters
        ----------
        x_NI : ndarray, (N, I), float32 or float64
            Input rows.

        Returns
        -------
        ndarray, (N, O)
            ``x @ W.T``; where rows are rounded, the arithmetic is float32.
        """
        if self.activations == "float":
            found: np.ndarray = ops.decoded_block_panel_product(x_NI, *self.panels, **self._decoding)
            return found
        rounded_NP = ops.round_activations(x_NI.astype(np.float32, copy=False), **self._rounding)
        y_NO: np.ndarray = ops.block_panel_product(rounded_NP, *self.panels, **self._meaning)
        return y_NO.astype(x_NI.dtype, copy=False)

    def lower(self, slot: int, program: Any) -> int:
        """Append the rounding, which all matrices that are alike in it share, and the product.

        Parameters
        ----------
        slot : int
            The buffer that holds the input rows.
        program : Program
            What is being built.

        Returns
        -------
        int
            The buffer of the result.
        """
        return self._lower(slot, program, self.panels)

    def lower_affine(self, slot: int, b_O: np.ndarray, program: Any) -> int:
        """Append the same, the bias in one step with the product.

        Parameters
        ----------
        slot : int
            The buffer that holds the input rows.
        b_O : ndarray, (O,)
            What every row of the product gets.
        program : Program
            What is being built.

        Returns
        -------
        int
            The buffer of the sum.
        """
        return self._lower(slot, program, (*self.panels, b_O))

    def _lower(self, slot: int, program: Any, constants: tuple[np.ndarray | None, ...]) -> int:
        n_outputs, n_inputs = self.size
        if self.activations == "float":
            name, options = "decoded_block_panel_product", self._decoding
            return int(program.step(name, (slot,), constants=constants, width=n_outputs, **options))
        width = RoundedRows.n_bytes(n_inputs)
        rounded = program.step("round_activations", (slot,), width=width, dtype=np.int8, **self._rounding)
        step = program.step("block_panel_product", (rounded,), constants=constants, width=n_outputs, **self._meaning)
        return int(step)

    @property
    def _rounding(self) -> dict[str, Any]:
        """Options of the rounding."""
        return {"group": ACTIVATION_GROUPS[self.activations], "scale": None}

    @property
    def _decoding(self) -> dict[str, Any]:
        """Options of the product with floats."""
        return {"format": self.format, "n_outputs": self.size[0]}

    @property
    def _meaning(self) -> dict[str, Any]:
        """Options of the product with bytes."""
        n_outputs, n_inputs = self.size
        return {"format": self.format, "n_inputs": n_inputs, "n_outputs": n_outputs}
