"""Weight: a linear map from I inputs to O outputs, however it is stored."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

import numpy as np

from minislm.errors import ModelFileError, UsageError, unknown

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


def check_array(name: str, array: np.ndarray, shape: tuple[int | None, ...], dtypes: Iterable[str]) -> None:
    """Raise unless `array` has the given sizes (None: any) and one of the given dtypes.

    Parameters
    ----------
    name : str
        What the array is, for the message.
    array : ndarray
        What came.
    shape : tuple of int or None
        Sizes that it must have.
    dtypes : iterable of str
        Names of the dtypes that it may have.

    Raises
    ------
    UsageError
        Code ``unknown_dtype``, ``bad_shape`` (number of axes) or ``size_mismatch``.
    """
    dtypes = tuple(dtypes)
    if array.dtype.name not in dtypes:
        raise UsageError("unknown_dtype", f"{name} must be {' or '.join(dtypes)}, not {array.dtype.name}")
    if array.ndim != len(shape):
        raise UsageError("bad_shape", f"{name} must have {len(shape)} axes; its shape is {array.shape}")
    if any(wanted not in (None, size) for wanted, size in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise UsageError("size_mismatch", f"{name} must have the shape ({wanted}), not {array.shape}")


def check_names(spec: Mapping[str, Any], arrays: Mapping[str, np.ndarray], names: Iterable[str]) -> None:
    """Raise unless `arrays` has exactly the given names, with ModelFileError code ``config_vs_weights``."""
    if set(arrays) != (wanted := set(names)):
        raise ModelFileError(
            "config_vs_weights",
            f"a weight of type {spec['type']!r} is made of the arrays {sorted(wanted)}; these came: {sorted(arrays)}",
        )


def field_of(spec: Mapping[str, Any], name: str, kind: type) -> Any:
    """Return a field of a spec that must be of the given type.

    Parameters
    ----------
    spec : mapping
        What a file says about a Weight.
    name : str
        The field.
    kind : type
        The Python type that JSON gives it.

    Returns
    -------
    object
        Its value.

    Raises
    ------
    ModelFileError
        Code ``bad_field_type``: it is missing or of another type.
    """
    if type(value := spec.get(name)) is not kind:
        raise ModelFileError(
            "bad_field_type", f"{name!r} of a stored weight must be a {kind.__name__}, not {value!r:.80}"
        )
    return value


def shape_of(spec: Mapping[str, Any]) -> tuple[int, int]:
    """Return a spec's ``"shape"``, [outputs, inputs].

    Parameters
    ----------
    spec : mapping
        What a file says about a Weight.

    Returns
    -------
    tuple of int
        Two sizes that are not negative.

    Raises
    ------
    ModelFileError
        Code ``bad_field_type`` or ``bad_shape``.
    """
    shape = field_of(spec, "shape", list)
    if len(shape) != 2 or not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise ModelFileError("bad_shape", f"the shape of a stored weight must be [outputs, inputs], not {shape!r:.80}")
    return shape[0], shape[1]


@contextlib.contextmanager
def claims_of_a_file() -> Iterator[None]:
    """Turn what a constructor finds wrong into a ModelFileError of the same code: these arrays came from a file."""
    try:
        yield
    except UsageError as error:
        raise ModelFileError(error.code, error.args[0]) from error
