"""Product: one map after another. Low rank, channel scales and their mixtures are products."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from minislm.dispatch import ops, runs_compiled
from minislm.errors import UsageError
from minislm.weights.base import Arrays, Weight, below, join, under
from minislm.weights.checks import check_names, claims_of_a_file, field_of
from minislm.weights.dense import Dense


@dataclass(frozen=True, eq=False)
class Product(Weight):
    """``left @ right``: first `right` (I to R), then `left` (R to O).

    Parameters
    ----------
    left : Weight, (O, R)
        What writes the output.
    right : Weight, (R, I)
        What reads the input.

    Raises
    ------
    UsageError
        Code ``size_mismatch``.
    """

    left: Weight
    right: Weight

    def __post_init__(self) -> None:
        if self.left.shape[1] != self.right.shape[0]:
            raise UsageError(
                "size_mismatch",
                f"the inputs of the left factor {self.left.shape} must be the outputs of the right {self.right.shape}",
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Logical (outputs, inputs)."""
        return self.left.shape[0], self.right.shape[1]

    @property
    def n_parameters(self) -> int:
        """Those of both."""
        return self.left.n_parameters + self.right.n_parameters

    def apply(self, x_NI: np.ndarray) -> np.ndarray:
        """Return `left` of `right`; two Dense factors are one op."""
        if factors := self._factors():
            result: np.ndarray = ops.low_rank_product(x_NI, *factors)
            return result
        return self.left.apply(self.right.apply(x_NI))

    def apply_t(self, dy_NO: np.ndarray) -> np.ndarray:
        """Return `right` of `left`, both transposed."""
        return self.right.apply_t(self.left.apply_t(dy_NO))

    def grads(self, x_NI: np.ndarray, dy_NO: np.ndarray) -> Arrays:
        """Return the gradients of both: `left` read ``right.apply(x)``, `right` made what `left` passes back."""
        of_left = self.left.grads(self.right.apply(x_NI), dy_NO) if self.left.trainable() else {}
        of_right = self.right.grads(x_NI, self.left.apply_t(dy_NO)) if self.right.trainable() else {}
        return {**under("left", of_left), **under("right", of_right)}

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return the rows of `left`, multiplied by `right`."""
        return self.right.apply_t(self.left.rows(ids))

    def rows_grads(self, ids: np.ndarray, dw_NI: np.ndarray) -> Arrays:
        """Return the gradients of both: ``rows = left.rows(ids) @ right``, so `right` has its two roles exchanged."""
        of_left = self.left.rows_grads(ids, self.right.apply(dw_NI)) if self.left.trainable() else {}
        of_right = self.right.grads(dw_NI, self.left.rows(ids)) if self.right.trainable() else {}
        return {**under("left", of_left), **under("right", of_right)}

    def dense(self) -> np.ndarray:
        """Return the product of the matrices."""
        matrix: np.ndarray = self.left.dense() @ self.right.dense()
        return matrix

    def arrays(self) -> Arrays:
        """Return the arrays of both, prefixed."""
        return {**under("left", self.left.arrays()), **under("right", self.right.arrays())}

    def trainable(self) -> tuple[str, ...]:
        """Return the names of both, prefixed."""
        return (
            *(join("left", name) for name in self.left.trainable()),
            *(join("right", name) for name in self.right.trainable()),
        )

    def spec(self) -> dict[str, Any]:
        """Return the specs of both."""
        return {"type": "product", "left": self.left.spec(), "right": self.right.spec()}

    @classmethod
    def from_arrays(cls, spec: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Rebuild both factors over their arrays."""
        from minislm.weights import build

        left, right = below("left", arrays), below("right", arrays)
        check_names(spec, arrays, {**under("left", left), **under("right", right)})
        with claims_of_a_file():
            return cls(build(field_of(spec, "left", dict), left), build(field_of(spec, "right", dict), right))

    def with_activations(self, activations: str) -> Weight:
        """Return the product of both with these activations."""
        return Product(self.left.with_activations(activations), self.right.with_activations(activations))

    def lower(self, slot: int, program: Any) -> int:
        """Append the steps of both, or one step for two Dense factors that are not in panels."""
        if not runs_compiled("float_panel_product") and (factors := self._factors()):
            return int(program.step("low_rank_product", (slot,), constants=factors, width=self.shape[0]))
        return self.left.lower(self.right.lower(slot, program), program)

    def lower_affine(self, slot: int, b_O: np.ndarray, program: Any) -> int:
        """Append the steps of both, `left` with the bias."""
        if runs_compiled("float_panel_product"):
            return self.left.lower_affine(self.right.lower(slot, program), b_O, program)
        return super().lower_affine(slot, b_O, program)

    def _factors(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return (right, left) if both are Dense and multiply as they are stored."""
        left, right = self.left, self.right
        if isinstance(left, Dense) and isinstance(right, Dense) and not (left.half or right.half):
            return right.array, left.array
        return None
