"""Weight: a linear map from I inputs to O outputs, however it is stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

Arrays = dict[str, np.ndarray]


class Weight(ABC):
    """A linear map O x I. Layers use these verbs and never ask how the numbers are stored.

    Arrays of a Weight are read-only by agreement: nobody writes into them. A leaf's main array has the empty name, so
    that a `Dense` under the path ``up.weight`` is saved as ``up.weight``; a node prefixes its parts' names.
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Logical (outputs, inputs), whatever the storage."""

    @abstractmethod
    def apply(self, x_NI: np.ndarray) -> np.ndarray:
        """Return ``x @ W.T``, (N, O)."""

    @abstractmethod
    def apply_t(self, dy_NO: np.ndarray) -> np.ndarray:
        """Return ``dy @ W``, (N, I): the gradient of `apply`'s input."""

    @abstractmethod
    def grads(self, x_NI: np.ndarray, dy_NO: np.ndarray) -> Arrays:
        """Return the gradients of the Weight's own trainable arrays, under the names of `arrays`."""

    @abstractmethod
    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return the rows `ids` (N,) of the matrix, (N, I): the embedding lookup."""

    @abstractmethod
    def rows_grads(self, ids: np.ndarray, dw_NI: np.ndarray) -> Arrays:
        """Return the gradients of the trainable arrays when `rows` was the forward and `dw_NI` its gradient."""

    @abstractmethod
    def dense(self) -> np.ndarray:
        """Return the matrix itself, (O, I) float32 (float64 if stored so); only ever called by name."""

    @abstractmethod
    def arrays(self) -> Arrays:
        """Return the stored arrays by name, in storage order."""

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """Return what `from_arrays` needs besides the arrays, as JSON; ``"type"`` names the table row."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, spec: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Rebuild the Weight over the given arrays, without copying them."""

    @abstractmethod
    def lower(self, slot: int, program: Any) -> int:
        """Append this product's steps to `program`, reading buffer `slot`; return the buffer of the result."""

    def trainable(self) -> tuple[str, ...]:
        """Return the names of the arrays that have gradients; `grads` returns exactly these."""
        return ()

    def repacked(self, layout: str) -> Weight:
        """Return the same numbers in another memory layout (``"canonical"`` undoes it), bit-exactly reversible."""
        if layout != "canonical":
            from minislm.errors import unknown

            raise unknown("layout", layout, ["canonical"])
        return self

    @property
    def nbytes(self) -> int:
        """Bytes of all stored arrays."""
        return sum(array.nbytes for array in self.arrays().values())

    @property
    def bits_per_weight(self) -> float:
        """Stored bits for each entry of the logical matrix."""
        n_outputs, n_inputs = self.shape
        return 8.0 * self.nbytes / (n_outputs * n_inputs)

    def __matmul__(self, right: Weight) -> Weight:
        from minislm.weights.product import Product

        return Product(self, right)

    def __add__(self, other: Weight) -> Weight:
        from minislm.weights.sum import Sum

        return Sum(self, other)


def under(prefix: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Prefix every name: ``under("left", {"": w, "s": s})`` is ``{"left": w, "left.s": s}``."""
    return {join(prefix, name): array for name, array in arrays.items()}


def below(prefix: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Undo `under`: the arrays whose names start with `prefix`, without it."""
    return {
        name[len(prefix) :].removeprefix("."): array
        for name, array in arrays.items()
        if name == prefix or name.startswith(prefix + ".")
    }


def join(prefix: str, name: str) -> str:
    """Join two parts of a path with a dot; either may be empty."""
    return f"{prefix}.{name}" if prefix and name else prefix or name
