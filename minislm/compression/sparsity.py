"""Masks: which entries stay, how many at which step, and the way from masked to sparse storage and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from minislm.compression.parts import leaves, with_leaves
from minislm.ops.panels import BLOCK, OUTPUTS
from minislm.weights.base import Weight
from minislm.weights.dense import Dense
from minislm.weights.masked import Masked
from minislm.weights.sparse import Sparse


def cubic(step: int, n_steps: int, sparsity: float) -> float:
    """Return the sparsity of the gradual schedule: ``sparsity * (1 - (1 - step / n_steps) ** 3)``, then constant.

    Parameters
    ----------
    step : int
        Steps done.
    n_steps : int
        Steps of the ramp.
    sparsity : float
        Where it ends.

    Returns
    -------
    float
        From 0 to `sparsity`.

    Examples
    --------
    >>> [round(cubic(step, 10, 0.8), 3) for step in (0, 5, 10, 20)]
    [0.0, 0.7, 0.8, 0.8]
    """
    return sparsity * (1.0 - (1.0 - min(1.0, step / n_steps)) ** 3)


def keep_share(matrices: list[np.ndarray], sparsity: float) -> list[np.ndarray]:
    """Return masks that leave out the given share of all entries, those of smallest magnitude.

    Parameters
    ----------
    matrices : list of ndarray
        Ranked together.
    sparsity : float
        Share to leave out, [0, 1); rounded to whole entries.

    Returns
    -------
    list of ndarray of bool
        True where an entry stays. Of equal magnitudes the first ones go.
    """
    magnitude_Z = np.concatenate([np.abs(matrix).ravel() for matrix in matrices])
    n_zeros = round(sparsity * magnitude_Z.size)
    keep_Z = np.ones(magnitude_Z.size, bool)
    if n_zeros:
        threshold = np.partition(magnitude_Z, n_zeros - 1)[n_zeros - 1]
        keep_Z = magnitude_Z > threshold
        equal = np.flatnonzero(magnitude_Z == threshold)
        keep_Z[equal[equal.size - (magnitude_Z.size - n_zeros - int(keep_Z.sum())) :]] = True
    parts = np.split(keep_Z, np.cumsum([matrix.size for matrix in matrices])[:-1])
    return [part.reshape(matrix.shape) for part, matrix in zip(parts, matrices, strict=True)]


def keep_blocks(matrices: list[np.ndarray], sparsity: float) -> list[np.ndarray]:
    """Return masks that leave out the given share of all blocks of 16 outputs and 32 inputs, the smallest.

    Parameters
    ----------
    matrices : list of ndarray, (O, I)
        Ranked together; 16 divides each O.
    sparsity : float
        Share to leave out, [0, 1); rounded to whole blocks.

    Returns
    -------
    list of ndarray of bool, (O, I)
        True where an entry stays. A block's size is its sum of squares.
    """
    sums = []
    for matrix in matrices:
        n_outputs, n_inputs = matrix.shape
        squares = np.pad(np.square(matrix, dtype=np.float64), ((0, 0), (0, -n_inputs % BLOCK)))
        sums.append(squares.reshape(n_outputs // OUTPUTS, OUTPUTS, -1, BLOCK).sum(axis=(1, 3)))
    kept = keep_share(sums, sparsity)
    pairs = zip(kept, matrices, strict=True)
    return [np.repeat(np.repeat(keep, OUTPUTS, 0), BLOCK, 1)[:, : matrix.shape[1]] for keep, matrix in pairs]


def keep_largest(w_OI: np.ndarray, pattern: str) -> np.ndarray:
    """Return the mask that keeps, of every m neighbours along a row, the n of largest magnitude.

    Parameters
    ----------
    w_OI : ndarray of float, (O, I)
        The matrix; the last group of a row may be short.
    pattern : str
        ``"n:m"``.

    Returns
    -------
    ndarray of bool, (O, I)
        True where an entry stays. Of equal magnitudes the first ones stay.

    Examples
    --------
    >>> keep_largest(np.array([[3.0, -1.0, 2.0, 0.5]]), "2:4").astype(int)
    array([[1, 0, 1, 0]])
    """
    n, m = (int(part) for part in pattern.split(":"))
    n_outputs, n_inputs = w_OI.shape
    padded = np.pad(np.abs(w_OI), ((0, 0), (0, -n_inputs % m)), constant_values=-1.0)
    order_OJZ = np.argsort(-padded.reshape(n_outputs, -1, m), axis=-1, kind="stable")
    mask_OJZ = np.zeros(order_OJZ.shape, bool)
    np.put_along_axis(mask_OJZ, order_OJZ[..., :n], True, axis=-1)
    return mask_OJZ.reshape(n_outputs, -1)[:, :n_inputs]


def to_sparse(weight: Weight, pattern: str) -> Weight:
    """Return a Weight's expression with its masked leaves stored without their zeros.

    Parameters
    ----------
    weight : Weight
        Whose `Masked` leaves are meant.
    pattern : str
        ``"bitmap"``, ``"csr"`` or ``"n:m"``; see `Sparse`.

    Returns
    -------
    Weight
        With `Sparse` leaves; a mask that drops nothing leaves a `Dense`.
    """
    return with_leaves(weight, (_stored(leaf, pattern) for leaf in leaves(weight)))


def thawed(model: Any) -> Any:
    """Return a model whose sparse weights can be trained, as masked ones.

    Parameters
    ----------
    model : Model
        Perhaps with `Sparse` weights. Those of quantized values stay as they are.

    Returns
    -------
    Model
        Of the same values.
    """
    sparse = {path: weight for path, weight in model.weights().items() if any(map(_trainable, leaves(weight)))}
    return model.replaced({path: with_leaves(weight, map(_masked, leaves(weight))) for path, weight in sparse.items()})


def frozen_as(model: Any, before: Any) -> Any:
    """Undo `thawed`, after training.

    Parameters
    ----------
    model : Model
        The trained one.
    before : Model
        What `thawed` was given.

    Returns
    -------
    Model
        `model` with its masked weights stored as those of `before` are.
    """
    weights = model.weights()
    found: dict[str, Weight] = {}
    for path, weight in before.weights().items():
        pairs = list(zip(leaves(weights[path]), leaves(weight), strict=True))
        if any(_trainable(old) for _, old in pairs):
            new = (_stored(leaf, old.pattern) if isinstance(old, Sparse) else leaf for leaf, old in pairs)
            found[path] = with_leaves(weight, new)
    return model.replaced(found)


def _trainable(leaf: Weight) -> bool:
    return isinstance(leaf, Sparse) and isinstance(leaf.values, Dense)


def _masked(leaf: Weight) -> Weight:
    """Return a sparse leaf with its zeros held by a mask."""
    if not _trainable(leaf):
        return leaf
    w_OI = leaf.dense()
    return Masked.from_dense(w_OI, w_OI != 0)


def _stored(leaf: Weight, pattern: str) -> Weight:
    """Return a masked leaf without its zeros."""
    if not isinstance(leaf, Masked):
        return leaf
    return Dense(leaf.array) if leaf.kept.all() else Sparse.from_dense(leaf.array, leaf.kept, pattern)
