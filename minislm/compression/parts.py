"""The parts of a model that a Method works on: Weights by name pattern, and the leaves of their expressions."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from minislm.errors import DataError, UnsupportedError, UsageError, starred
from minislm.weights.base import Weight
from minislm.weights.dense import Dense
from minislm.weights.product import Product
from minislm.weights.sum import Sum

if TYPE_CHECKING:
    from minislm.compression.base import Method


def chosen(model: Any, where: str) -> dict[str, Weight]:
    """Return the Weights whose paths match.

    Parameters
    ----------
    model : Model
        Whose Weights.
    where : str
        `fnmatch` patterns separated by commas; case matters.

    Returns
    -------
    dict of str to Weight
        In the model's order.

    Raises
    ------
    UsageError
        Code ``pattern_matches_nothing``: one of the patterns names no Weight of this model.
    """
    weights: dict[str, Weight] = model.weights()
    found: set[str] = set()
    for pattern in (part.strip() for part in where.split(",")):
        matches = {path for path in weights if fnmatch.fnmatchcase(path, pattern)}
        if not matches:
            raise UsageError(
                "pattern_matches_nothing", f"no weight matches {pattern!r}; the model has {starred(weights)}"
            )
        found |= matches
    return {path: weight for path, weight in weights.items() if path in found}


def leaves(weight: Weight) -> list[Weight]:
    """Return what a Weight's products and sums are made of.

    Parameters
    ----------
    weight : Weight
        Any expression.

    Returns
    -------
    list of Weight
        Left to right; a Weight that is neither product nor sum is its own only leaf.
    """
    if isinstance(weight, Product):
        return leaves(weight.left) + leaves(weight.right)
    if isinstance(weight, Sum):
        return leaves(weight.a) + leaves(weight.b)
    return [weight]


def with_leaves(weight: Weight, new: Iterator[Weight]) -> Weight:
    """Put new leaves into a Weight's expression.

    Parameters
    ----------
    weight : Weight
        Lends its products and sums.
    new : iterator of Weight
        One for each of its `leaves`, in their order.

    Returns
    -------
    Weight
        The same expression over the new leaves.
    """
    if isinstance(weight, Product):
        return Product(with_leaves(weight.left, new), with_leaves(weight.right, new))
    if isinstance(weight, Sum):
        return Sum(with_leaves(weight.a, new), with_leaves(weight.b, new))
    return next(new)


def leaf_inputs(weight: Weight, x_NI: np.ndarray) -> list[np.ndarray]:
    """Return what each leaf of a Weight's expression multiplies.

    Parameters
    ----------
    weight : Weight
        Any expression.
    x_NI : ndarray, (N, I)
        What the Weight multiplies.

    Returns
    -------
    list of ndarray
        One for each of its `leaves`, in their order.
    """
    if isinstance(weight, Product):
        return leaf_inputs(weight.left, weight.right.apply(x_NI)) + leaf_inputs(weight.right, x_NI)
    if isinstance(weight, Sum):
        return leaf_inputs(weight.a, x_NI) + leaf_inputs(weight.b, x_NI)
    return [x_NI]


def stored_matrix(method: Method, path: str, leaf: Weight) -> np.ndarray:
    """Return the matrix of a Dense as it is stored.

    Parameters
    ----------
    method : Method
        Named in the message.
    path : str
        Of the Weight, for the message.
    leaf : Weight
        Which must be a Dense.

    Returns
    -------
    ndarray, (O, I), any dtype of a Dense
        Its numbers; not checked.

    Raises
    ------
    UnsupportedError
        Code ``unsupported_storage``: it is no Dense.
    """
    if not isinstance(leaf, Dense):
        raise UnsupportedError(
            "unsupported_storage",
            f"{method.name} works on dense weights; {path} is stored as {leaf.spec()['type']}. "
            f"Do this step earlier in the recipe, or leave {path} out of `where`",
        )
    return leaf.array


def dense_matrix(method: Method, path: str, leaf: Weight) -> np.ndarray:
    """Return the matrix of a Dense, after a check.

    Parameters
    ----------
    method : Method
        Named in the message.
    path : str
        Of the Weight, for the message.
    leaf : Weight
        Which must be a Dense.

    Returns
    -------
    ndarray, (O, I), float32 or float64
        Its numbers.

    Raises
    ------
    UnsupportedError
        Code ``unsupported_storage``: it is no Dense.
    DataError
        Code ``non_finite_weight``.
    """
    stored_matrix(method, path, leaf)
    w_OI = leaf.dense()
    if not np.isfinite(w_OI).all():
        raise DataError(
            "non_finite_weight",
            f"{method.name}: {path} holds numbers that are not finite. "
            "Go back to a checkpoint from before training diverged",
        )
    return w_OI
