"""MaskedPanels: a sparse matrix laid out as compiled kernels multiply it; only in memory, never in files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.dispatch import ops
from minislm.ops.formats import Format
from minislm.ops.masked_panels import MaskedLayout
from minislm.ops.panels import RoundedRows
from minislm.ops.quantized import ACTIVATION_GROUPS


@dataclass(frozen=True, eq=False)
class MaskedPanels:
    """What multiplies in place of a `Sparse`.

    Parameters
    ----------
    size : tuple of int
        Logical (outputs, inputs).
    layout : MaskedLayout
        What is stored.
    format : Format or None
        What codes mean, in groups of inputs; None: the values are floats.
    activations : {"float", "int8-row", "int8-32"}
        How inputs enter the product; those of floats are not rounded.
    scales : ndarray, (panels, J, 16), float16 or float32, or None
        Scale of each group.
    zeros : ndarray, (panels, J, 16), uint8, or None
        Code of zero in each group of an asymmetric format.
    """

    size: tuple[int, int]
    layout: MaskedLayout
    format: Format | None = None
    activations: str = "float"
    scales: np.ndarray | None = None
    zeros: np.ndarray | None = None

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
            found: np.ndarray = ops.decoded_masked_panel_product(x_NI, *self._stored, **self._decoding)
            return found
        rounded_NP = ops.round_activations(x_NI.astype(np.float32, copy=False), **self._rounding)
        y_NO: np.ndarray = ops.masked_panel_product(rounded_NP, *self._stored, **self._meaning)
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
        constants = (*self._stored, b_O)
        if self.activations == "float":
            name, options = "decoded_masked_panel_product", self._decoding
            return int(program.step(name, (slot,), constants=constants, width=n_outputs, **options))
        width = RoundedRows.n_bytes(n_inputs)
        rounded = program.step("round_activations", (slot,), width=width, dtype=np.int8, **self._rounding)
        step = program.step("masked_panel_product", (rounded,), constants=constants, width=n_outputs, **self._meaning)
        return int(step)

    @property
    def _stored(self) -> tuple[np.ndarray | None, ...]:
        return (*self.layout, self.scales, self.zeros)

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
        group = ACTIVATION_GROUPS[self.activations]
        return {"format": self.format, "group": group, "n_inputs": n_inputs, "n_outputs": n_outputs}
