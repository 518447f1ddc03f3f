"""Sum: two maps of the same shape, added. A quantized matrix and its LoRA update are one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from minislm.dispatch import ops
from minislm.errors import UsageError
from minislm.weights.base import Arrays, Weight, below, join, under
from minislm.weights.checks import check_names, claims_of_a_file, field_of


@dataclass(frozen=True, eq=False)
class Sum(Weight):
    """``a + b``.

    Parameters
    ----------
    a, b : Weight
        Maps of one shape.

    Raises
    ------
    UsageError
        Code ``size_mismatch``.
    """

    a: Weight
    b: Weight

    def __post_init__(self) -> None:
        if self.a.shape != self.b.shape:
            raise UsageError("size_mismatch", f"only equal shapes can be added, not {self.a.shape} and {self.b.shape}")

    @property
    def shape(self) -> tuple[int, int]:
        """Logical (outputs, inputs)."""
        return self.a.shape

    @property
    def n_parameters(self) -> int:
        """Those of both."""
        return self.a.n_parameters + self.b.n_parameters

    def apply(self, x_NI: np.ndarray) -> np.ndarray:
        """Return both results, added."""
        return _added(self.a.apply(x_NI), self.b.apply(x_NI))

    def apply_t(self, dy_NO: np.ndarray) -> np.ndarray:
        """Return both results, added."""
        return _added(self.a.apply_t(dy_NO), self.b.apply_t(dy_NO))

    def grads(self, x_NI: np.ndarray, dy_NO: np.ndarray) -> Arrays:
        """Return the gradients of both, prefixed."""
        return {**under("a", self.a.grads(x_NI, dy_NO)), **under("b", self.b.grads(x_NI, dy_NO))}

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return both rows, added."""
        return _added(self.a.rows(ids), self.b.rows(ids))

    def rows_grads(self, ids: np.ndarray, dw_NI: np.ndarray) -> Arrays:
        """Return the gradients of both, prefixed."""
        return {**under("a", self.a.rows_grads(ids, dw_NI)), **under("b", self.b.rows_grads(ids, dw_NI))}

    def dense(self) -> np.ndarray:
        """Return the sum of the matrices."""
        return _added(self.a.dense(), self.b.dense())

    def arrays(self) -> Arrays:
        """Return the arrays of both, prefixed."""
        return {**under("a", self.a.arrays()), **under("b", self.b.arrays())}

    def trainable(self) -> tuple[str, ...]:
        """Return the names of both, prefixed."""
        return (*(join("a", name) for name in self.a.trainable()), *(join("b", name) for name in self.b.trainable()))

    def spec(self) -> dict[str, Any]:
        """Return the specs of both."""
        return {"type": "sum", "a": self.a.spec(), "b": self.b.spec()}

    @classmethod
    def from_arrays(cls, spec: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Rebuild both parts over their arrays."""
        from minislm.weights import build

        a, b = below("a", arrays), below("b", arrays)
        check_names(spec, arrays, {**under("a", a), **under("b", b)})
        with claims_of_a_file():
            return cls(build(field_of(spec, "a", dict), a), build(field_of(spec, "b", dict), b))

    def with_activations(self, activations: str) -> Weight:
        """Return the sum of both with these activations."""
        return Sum(self.a.with_activations(activations), self.b.with_activations(activations))

    def lower(self, slot: int, program: Any) -> int:
        """Append the steps of both and their addition."""
        parts = (self.a.lower(slot, program), self.b.lower(slot, program))
        return int(program.step("add", parts, width=self.shape[0]))


def _added(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    result: np.ndarray = ops.add(a, b)
    return result
