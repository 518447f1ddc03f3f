"""PanelProduct: how a matrix in panels multiplies, alone and as steps of a program; only in memory, never in files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.dispatch import ops
from minislm.ops.blocks import BlockFormat
from minislm.ops.formats import Format
from minislm.ops.panels import RoundedRows
from minislm.ops.quantized import ACTIVATION_GROUPS

OF_GROUPS = ("panel_product", "masked_panel_product")  # which are told how many inputs of a row share a scale


@dataclass(frozen=True, eq=False)
class PanelProduct:
    """What multiplies in place of a matrix that is stored in another order: an op and the arrays that it takes.

    Parameters
    ----------
    size : tuple of int
        Logical (outputs, inputs).
    op : str
        What multiplies: ``"panel_product"``, ``"block_panel_product"``, ``"masked_panel_product"`` or
        ``"block_sparse_panel_product"``, which take rounded rows; or, with float activations, the same after
        ``"decoded_"`` (all but the last).
    arrays : tuple of ndarray or None
        Its arguments between the rows and the bias.
    format : Format, BlockFormat or None
        What codes mean; None: the values are floats.
    activations : {"float", "int8-row", "int8-32", "static"}
        How inputs enter the product.
    activation_scale : ndarray, (1,), float32, optional
        Of static activations.
    """

    size: tuple[int, int]
    op: str
    arrays: tuple[np.ndarray | None, ...]
    format: Format | BlockFormat | None
    activations: str
    activation_scale: np.ndarray | None = None

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
        rows = x_NI
        if self.activations != "float":
            rows = ops.round_activations(x_NI.astype(np.float32, copy=False), **self._rounding)
        y_NO: np.ndarray = getattr(ops, self.op)(rows, *self.arrays, **self._meaning)
        return y_NO.astype(x_NI.dtype, copy=False)

    def lower(self, slot: int, program: Any, b_O: np.ndarray | None = None) -> int:
        """Append the rounding, which all matrices that are alike in it share, and the product with its bias.

        Parameters
        ----------
        slot : int
            The buffer that holds the input rows.
        program : Program
            What is being built.
        b_O : ndarray, (O,), optional
            What every row of the product gets.

        Returns
        -------
        int
            The buffer of the result.
        """
        n_outputs, n_inputs = self.size
        if self.activations != "float":
            width = RoundedRows.n_bytes(n_inputs)
            slot = program.step("round_activations", (slot,), width=width, dtype=np.int8, **self._rounding)
        constants = (*self.arrays, b_O)
        return int(program.step(self.op, (slot,), constants=constants, width=n_outputs, **self._meaning))

    @property
    def _rounding(self) -> dict[str, Any]:
        """Options of the rounding."""
        scale = None if self.activation_scale is None else float(self.activation_scale[0])
        return {"group": ACTIVATION_GROUPS[self.activations], "scale": scale}

    @property
    def _meaning(self) -> dict[str, Any]:
        """Options of the product."""
        n_outputs, n_inputs = self.size
        options: dict[str, Any] = {"format": self.format, "n_outputs": n_outputs}
        if self.activations != "float":
            options["n_inputs"] = n_inputs
        if self.op in OF_GROUPS:
            options["group"] = ACTIVATION_GROUPS[self.activations]
        return options
