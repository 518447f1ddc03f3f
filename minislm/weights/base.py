"""Weight: a linear map from I inputs to O outputs, however it is stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from minislm.errors import unknown

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
        """Multiply rows by the transposed matrix: forward.

        Parameters
        ----------
        x_NI : ndarray, (N, I), float32 or float64
            Input rows.

        Returns
        -------
        ndarray, (N, O)
            ``x @ W.T``.
        """

    @abstractmethod
    def apply_t(self, dy_NO: np.ndarray) -> np.ndarray:
        """Multiply rows by the matrix: backward to the input.

        Parameters
        ----------
        dy_NO : ndarray, (N, O), float32 or float64
            Gradient of `apply`'s result.

        Returns
        -------
        ndarray, (N, I)
            ``dy @ W``, the gradient of `apply`'s input.
        """

    @abstractmethod
    def grads(self, x_NI: np.ndarray, dy_NO: np.ndarray) -> Arrays:
        """Return the gradients of the Weight's own trainable arrays.

        Parameters
        ----------
        x_NI : ndarray, (N, I)
            What `apply` was given.
        dy_NO : ndarray, (N, O)
            Gradient of its result.

        Returns
        -------
        dict of str to ndarray
            One for each name of `trainable`, of that array's shape, float32 or float64.
        """

    @abstractmethod
    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Look rows of the matrix up: the embedding.

        Parameters
        ----------
        ids : ndarray, (N,), int64
            Wanted rows, repeated at will.

        Returns
        -------
        ndarray, (N, I)
            Row ``ids[n]`` at place n.
        """

    @abstractmethod
    def rows_grads(self, ids: np.ndarray, dw_NI: np.ndarray) -> Arrays:
        """Return the gradients of the trainable arrays where `rows` was the forward.

        Parameters
        ----------
        ids : ndarray, (N,), int64
            What `rows` was given.
        dw_NI : ndarray, (N, I)
            Gradient of its result.

        Returns
        -------
        dict of str to ndarray
            As those of `grads`; rows that were looked up several times add up.
        """

    @abstractmethod
    def dense(self) -> np.ndarray:
        """Return the matrix itself; nothing calls this but what asks for a whole matrix by name.

        Returns
        -------
        ndarray, (O, I), float32, or float64 if stored so
            It may be the stored array: not to be written into.
        """

    @abstractmethod
    def arrays(self) -> Arrays:
        """Return the stored arrays.

        Returns
        -------
        dict of str to ndarray
            By name, in storage order; not copies.
        """

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """Return what `from_arrays` needs besides the arrays.

        Returns
        -------
        dict
            JSON; ``"type"`` names the row of `minislm.weights.WEIGHTS`.
        """

    @classmethod
    @abstractmethod
    def from_arrays(cls, spec: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Rebuild the Weight over arrays, without copying them.

        Parameters
        ----------
        spec : mapping
            What `spec` returned, perhaps by way of a file: not trusted.
        arrays : mapping of str to ndarray
            What `arrays` returned, or others of the same names and shapes, such as the trainer's.

        Returns
        -------
        Weight
            An equal one.

        Raises
        ------
        ModelFileError
            Code ``config_vs_weights``, ``size_mismatch``, ``bad_shape``, ``bad_field_type``, ``unknown_dtype`` and the
            like: spec and arrays do not fit together.
        """

    @abstractmethod
    def lower(self, slot: int, program: Any) -> int:
        """Append this product's steps to a program.

        Parameters
        ----------
        slot : int
            The buffer that holds the input rows.
        program : Program
            What is being built.

        Returns
        -------
        int
            The buffer of the result, which equals that of `apply`.
        """

    def lower_rows(self, ids: int, program: Any) -> int:
        """Append the lookup of rows to a Program.

        Parameters
        ----------
        ids : int
            The buffer with their numbers.
        program : Program
            Gets the steps.

        Returns
        -------
        int
            The buffer of ``rows(ids)``.
        """
        return int(program.step("rows", (ids,), constants=(self,), width=self.shape[1]))

    def lower_affine(self, slot: int, b_O: np.ndarray, program: Any) -> int:
        """Append the steps of this product and of a bias.

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
        y = self.lower(slot, program)
        return int(program.step("add_bias", (y,), constants=(b_O,), width=self.shape[0]))

    def trainable(self) -> tuple[str, ...]:
        """Return the names of the arrays that have gradients.

        Returns
        -------
        tuple of str
            Empty for storages that are not trained.
        """
        return ()

    def with_activations(self, activations: str) -> Weight:
        """Return the same matrix, whose products take their inputs another way.

        Parameters
        ----------
        activations : {"float", "int8", "int8-row", "int8-32"}
            As they are, or rounded to signed bytes; see `minislm.weights.quantized.Quantized`.

        Returns
        -------
        Weight
            The Weight itself where it has no product of whole numbers: that of floats never rounds.

        Raises
        ------
        UnsupportedError
            Code ``unknown_activations``.
        """
        return self

    def repacked(self, layout: str) -> Weight:
        """Return the same numbers in another memory layout.

        Parameters
        ----------
        layout : str
            ``"canonical"`` is the one that `arrays` and files have, and undoes every other.

        Returns
        -------
        Weight
            Bit-exactly reversible.

        Raises
        ------
        UnsupportedError
            Code ``unknown_layout``.
        """
        if layout != "canonical":
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

    @property
    def n_parameters(self) -> int:
        """Numbers that the map is made of, whatever their storage; zeros, masks and indices do not count."""
        n_outputs, n_inputs = self.shape
        return n_outputs * n_inputs

    def __matmul__(self, right: Weight) -> Weight:
        from minislm.weights.product import Product

        return Product(self, right)

    def __add__(self, other: Weight) -> Weight:
        from minislm.weights.sum import Sum

        return Sum(self, other)


def under(prefix: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Prefix every name.

    Parameters
    ----------
    prefix : str
        Such as ``"left"``.
    arrays : mapping of str to ndarray
        A part's arrays.

    Returns
    -------
    dict of str to ndarray
        The same arrays: ``{"": w, "s": s}`` becomes ``{"left": w, "left.s": s}``.
    """
    return {join(prefix, name): array for name, array in arrays.items()}


def below(prefix: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Undo `under`.

    Parameters
    ----------
    prefix : str
        Such as ``"left"``.
    arrays : mapping of str to ndarray
        A node's arrays.

    Returns
    -------
    dict of str to ndarray
        Those of the part, without the prefix.
    """
    return {
        name[len(prefix) :].removeprefix("."): array
        for name, array in arrays.items()
        if name == prefix or name.startswith(prefix + ".")
    }


def join(prefix: str, name: str) -> str:
    """Join two parts of a path.

    Parameters
    ----------
    prefix, name : str
        Either may be empty.

    Returns
    -------
    str
        With a dot between them where both are not.
    """
    return f"{prefix}.{name}" if prefix and name else prefix or name
