"""What the constructors of Weights check, and how a file's claims are read: nothing of a file is believed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from minislm.errors import ModelFileError, UsageError, clipped


def check_array(name: str, array: np.ndarray, shape: tuple[int | None, ...], dtypes: Iterable[str]) -> None:
    """Raise unless an array has the given sizes and one of the given dtypes.

    Parameters
    ----------
    name : str
        What the array is, for the message.
    array : ndarray
        What came.
    shape : tuple of int or None
        Sizes that it must have; None: any.
    dtypes : iterable of str
        Names of the dtypes that it may have.

    Raises
    ------
    UsageError
        Code ``unknown_dtype``, ``bad_shape`` (number of axes) or ``size_mismatch``.
    """
    dtypes = tuple(dtypes)
    if array.dtype.name not in dtypes or not array.dtype.isnative:
        raise UsageError("unknown_dtype", f"{name} must be {' or '.join(dtypes)}, not {array.dtype}")
    if array.ndim != len(shape):
        raise UsageError("bad_shape", f"{name} must have {len(shape)} axes; its shape is {array.shape}")
    if any(wanted not in (None, size) for wanted, size in zip(shape, array.shape, strict=True)):
        sizes = ", ".join("any" if wanted is None else str(wanted) for wanted in shape)
        raise UsageError("size_mismatch", f"{name} must have the shape ({sizes}), not {array.shape}")


def check_names(spec: Mapping[str, Any], arrays: Mapping[str, np.ndarray], names: Iterable[str]) -> None:
    """Raise unless exactly the named arrays are there.

    Parameters
    ----------
    spec : mapping
        What a file says about a Weight.
    arrays : mapping of str to ndarray
        What came with it.
    names : iterable of str
        What the Weight is made of.

    Raises
    ------
    ModelFileError
        Code ``config_vs_weights``.
    """
    if set(arrays) != (wanted := set(names)):
        raise ModelFileError(
            "config_vs_weights",
            f"a weight of type {clipped(spec.get('type'))} is made of the arrays {sorted(wanted)}; "
            f"these came: {clipped(sorted(arrays))}",
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
            "bad_field_type", f"{name!r} of a stored weight must be a {kind.__name__}, not {clipped(value)}"
        )
    return value


def shape_of(spec: Mapping[str, Any]) -> tuple[int, int]:
    """Return the shape that a spec claims.

    Parameters
    ----------
    spec : mapping
        What a file says about a Weight; its ``"shape"`` is [outputs, inputs].

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
        raise ModelFileError(
            "bad_shape", f"the shape of a stored weight must be [outputs, inputs], not {clipped(shape)}"
        )
    return shape[0], shape[1]


@contextlib.contextmanager
def claims_of_a_file() -> Iterator[None]:
    """Turn what a constructor finds wrong into a ModelFileError of the same code: these arrays came from a file.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    ModelFileError
        Where the block raised a UsageError.
    """
    try:
        yield
    except UsageError as error:
        raise ModelFileError(error.code, error.args[0]) from error
