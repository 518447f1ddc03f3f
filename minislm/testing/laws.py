"""Laws that every op keeps: its backward is its gradient, it is pure, and float32 stays float32."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minislm.ops import OPS, load_op
from minislm.testing.tolerances import assert_close

Case = tuple[Sequence[Any], Mapping[str, Any]]


def check_gradient(
    op: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, step: float = 1e-5, bound: float = 1e-6, seed: int = 0
) -> None:
    """Check an op's backward against differences of its forward.

    A random covector weighs the outputs; a random direction moves one argument. The slope along it, by a central
    difference, must equal the inner product of direction and gradient.

    Parameters
    ----------
    op : str
        A row of the op table that has gradients.
    args : sequence
        Positional arguments; float arrays in float64.
    kwargs : mapping
        Keyword arguments.
    step : float
        Length of the difference's arms, relative to entries of size 1.
    bound : float
        Largest error allowed, relative to the typical size of the inner product.
    seed : int
        Of covector and directions.

    Raises
    ------
    AssertionError
        A gradient is wrong, missing, not finite or of the wrong shape; it shares memory with an input; or the op or its
        backward wrote into an argument.
    """
    rng = np.random.default_rng(seed)
    forward, backward = load_op(op), load_op(f"{op}_backward")
    before = copied(args), copied(kwargs)
    y, saved = forward(*args, **kwargs)
    dy = float(rng.normal()) if isinstance(y, float) else rng.normal(size=y.shape)
    dy_before = copied(dy)
    gradients = backward(dy, saved)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    if not same((args, kwargs, dy), (*before, dy_before)):
        raise AssertionError(f"{op} or its backward wrote into an argument")
    if len(gradients) != len(OPS[op].gradients):
        raise AssertionError(f"{op}_backward returned {len(gradients)} gradients, the table lists {OPS[op].gradients}")
    known = [*args, dy, saved]
    for name, gradient in zip(OPS[op].gradients, gradients, strict=True):
        place = _place(op, name)
        x = args[place] if place < len(args) else None
        if x is None:
            if gradient is not None:
                raise AssertionError(f"{op}_backward returned a gradient of {name}, which was not given")
            continue
        _check_array(f"d{name} of {op}", gradient, x, known)
        known.append(gradient)
        direction = rng.normal(size=x.shape)
        ends = [
            forward(*args[:place], x + sign * step * direction, *args[place + 1 :], **kwargs)[0] for sign in (1.0, -1.0)
        ]
        slope = float(np.sum((ends[0] - ends[1]) * dy)) / (2.0 * step)
        terms = gradient * direction
        error = abs(slope - float(terms.sum()))
        typical = float(np.linalg.norm(terms)) + 1e-3 * float(np.linalg.norm(dy * y))
        if not error <= bound * typical:
            raise AssertionError(
                f"d{name} of {op} is wrong: along a random direction the loss changes by {slope:.9g}, "
                f"the gradient says {float(terms.sum()):.9g} (error {error / typical if typical else np.inf:.2g}, "
                f"bound {bound:.2g})"
            )


def check_dtype(op: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Check that an op fed with float32 computes, saves and returns nothing wider.

    Parameters
    ----------
    op : str
        A row of the op table.
    args : sequence
        Positional arguments; float arrays in float64.
    kwargs : mapping
        Keyword arguments.

    Raises
    ------
    AssertionError
        An array of a result, or one that was saved, is wider than float32.
    """
    for array in _results(op, args, kwargs, np.float32):
        if np.issubdtype(array.dtype, np.inexact) and array.dtype.itemsize > 4:
            raise AssertionError(f"{op} turned float32 into {array.dtype} (an array of shape {array.shape})")


def check_precision(op: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, factor: float = 64.0) -> None:
    """Check that an op's float32 results are close to its float64 ones.

    Parameters
    ----------
    op : str
        A row of the op table.
    args : sequence
        Positional arguments; float arrays in float64.
    kwargs : mapping
        Keyword arguments.
    factor : float
        Largest difference, in float32 roundings of an array's largest entry.

    Raises
    ------
    AssertionError
        An array of a result, or one that was saved, is too far from its float64 value.
    """
    pairs = zip(_results(op, args, kwargs, np.float32), _results(op, args, kwargs, np.float64), strict=True)
    for narrow, wide in pairs:
        assert_close(narrow, wide, factor=factor, dtype=np.float32, name=f"float32 result of {op}")


def _results(op: str, args: Sequence[Any], kwargs: Mapping[str, Any], dtype: Any) -> list[np.ndarray]:
    """Run an op and its backward in `dtype`; return every array that they made or saved."""
    own_args, own_kwargs = cast(args, dtype), cast(kwargs, dtype)
    result = load_op(op)(*own_args, **own_kwargs)
    if result is None:  # an op that writes into its arguments
        return arrays_in(own_args)
    if not OPS[op].gradients:
        return arrays_in(result)
    y, saved = result
    dy = 1.0 if isinstance(y, float) else np.random.default_rng(0).normal(size=y.shape).astype(dtype)
    losses = [np.array(y, dtype)] if isinstance(y, float) else []
    return [*losses, *arrays_in((result, load_op(f"{op}_backward")(dy, saved)))]


def cast(value: Any, dtype: Any) -> Any:
    """Copy an argument or a container of them, float64 arrays as `dtype`.

    Parameters
    ----------
    value : object
        An array, a tuple, list or dictionary, or anything else, which is returned as it is.
    dtype : dtype-like
        What float64 arrays become; other arrays keep theirs.

    Returns
    -------
    object
        The same structure with fresh arrays.
    """
    if isinstance(value, np.ndarray):
        return value.astype(dtype if value.dtype == np.float64 else value.dtype)
    if isinstance(value, Mapping):
        return {name: cast(item, dtype) for name, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(cast(item, dtype) for item in value)
    return value


def copied(value: Any) -> Any:
    """Copy an argument or a container of them, arrays included.

    Parameters
    ----------
    value : object
        What `cast` takes.

    Returns
    -------
    object
        The same structure with fresh arrays.
    """
    return cast(value, np.float64)


def arrays_in(value: Any) -> list[np.ndarray]:
    """List the arrays in an object or a container of them.

    Parameters
    ----------
    value : object
        What `cast` takes.

    Returns
    -------
    list of ndarray
        In order of appearance.
    """
    if isinstance(value, np.ndarray):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value if type(value) in (tuple, list) else ()
    return [array for item in items for array in arrays_in(item)]


def same(one: Any, other: Any) -> bool:
    """Tell whether two structures hold the same arrays, bit for bit.

    Parameters
    ----------
    one, other : object
        What `cast` takes.

    Returns
    -------
    bool
        Only arrays are compared.
    """
    pairs = zip(arrays_in(one), arrays_in(other), strict=True)
    return all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)


def _place(op: str, gradient: str) -> int:
    """Return the position of the argument that a gradient belongs to: ``w_OI`` for ``w``."""
    names = [re.sub(r"_[A-Z0-9]+$", "", name) for name in inspect.signature(load_op(op)).parameters]
    return names.index(gradient)


def _check_array(name: str, gradient: Any, x: Any, inputs: Any) -> None:
    if not isinstance(gradient, np.ndarray) or gradient.shape != np.shape(x):
        raise AssertionError(f"{name} has shape {np.shape(gradient)}, its argument {np.shape(x)}")
    if not np.isfinite(gradient).all():
        raise AssertionError(f"{name} is not finite")
    if any(np.may_share_memory(gradient, array) for array in arrays_in(inputs)):
        raise AssertionError(f"{name} shares memory with an input or another gradient")
