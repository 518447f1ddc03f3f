"""FlatParameters: a model's trainable arrays in one flat float32 buffer, with gradients and moments beside it.

One buffer makes the optimizer a single pass over memory, the gradient's norm a single dot product, and a step free of
allocations. The model that went in is never written to.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from minislm.dispatch import ops
from minislm.errors import ConfigError, UsageError, starred
from minislm.training.settings import TrainSettings
from minislm.weights.base import Arrays, Weight, join

_BLOCK = 1024  # numbers that are summed one after the other
_LINE = 16  # float32 numbers in a cache line of 64 bytes; every array starts on one


class FlatParameters:
    """The trainable arrays of a model, and what AdamW keeps for them.

    Matrices, which decay, come first in the buffers; vectors and quantizer scales, which do not, come last.

    Parameters
    ----------
    model : Layer
        Whose `parameters` are copied; it stays as it is.
    freeze : str
        `fnmatch` patterns over full array names, separated by commas; what matches is left out.

    Raises
    ------
    UsageError
        Code ``pattern_matches_nothing``: one of the patterns names no array.
    ConfigError
        Code ``nothing_to_train``: no array is left.
    """

    def __init__(self, model: Any, freeze: str = "") -> None:
        arrays = _unfrozen(model.parameters(), freeze)
        decaying = [name for name in arrays if decays(name, arrays[name])]
        resting = [name for name in arrays if not decays(name, arrays[name])]
        self.shapes = {name: arrays[name].shape for name in (*decaying, *resting)}
        self.n_decaying = sum(_padded(arrays[name].size) for name in decaying)
        size = self.n_decaying + sum(_padded(arrays[name].size) for name in resting)
        self.values, self.grads, self.m, self.v = (_zeros(size) for _ in range(4))
        self.views = self.named(self.values)
        self.grad_views = self.named(self.grads)
        for name, array in arrays.items():
            np.copyto(self.views[name], array)
        self._model = model

    def named(self, buffer: np.ndarray) -> Arrays:
        """Return views of a flat buffer by array name.

        Parameters
        ----------
        buffer : ndarray of float32
            Laid out as `values`.

        Returns
        -------
        dict of str to ndarray
            In the buffer's order.
        """
        found: Arrays = {}
        start = 0
        for name, shape in self.shapes.items():
            size = math.prod(shape)
            found[name] = buffer[start : start + size].reshape(shape)
            start += _padded(size)
        return found

    def model(self) -> Any:
        """Return the model over the views.

        Returns
        -------
        Model
            A new object each time, so that what its Weights derive from their arrays is derived anew.
        """
        return self._model.with_arrays(self.views)

    def replace(self, parts: Mapping[str, Weight]) -> None:
        """Exchange Weights of the model; the values of their trainable arrays move into the buffer.

        Parameters
        ----------
        parts : mapping of str to Weight
            By full path. Names and shapes of their trainable arrays must be those of the Weights they replace.

        Raises
        ------
        UsageError
            Code ``bad_rewrite``: there is no such path, or a name or shape differs.
        """
        known = self._model.weights()
        for path, weight in parts.items():
            if path not in known:
                raise UsageError("bad_rewrite", f"the model has no weight {path!r}; it has {', '.join(known)}")
            arrays = _trainable(path, weight)
            before, after = _shapes(_trainable(path, known[path])), _shapes(arrays)
            if before != after:
                raise UsageError(
                    "bad_rewrite",
                    f"a rewritten weight must keep the names and shapes of its trainable arrays; {path} has {before} "
                    f"and would have {after}",
                )
            for name, array in arrays.items():
                if name in self.views:
                    np.copyto(self.views[name], array)
        self._model = self._model.replaced(parts)

    def scale_gradients(self, accumulated: int, clip: float) -> float:
        """Turn the sum of gradients into their mean, shortened to the norm `clip`.

        Parameters
        ----------
        accumulated : int
            How many gradients were added up.
        clip : float
            Largest norm; 0: any.

        Returns
        -------
        float
            The mean's norm before it was shortened; not finite if one of its numbers is not.
        """
        total = norm(self.grads) / accumulated
        if not math.isfinite(total):
            return total
        factor = (clip / total if 0.0 < clip < total else 1.0) / accumulated
        if factor != 1.0:
            self.grads *= np.float32(factor)
        return total

    def update(self, step: int, learning_rate: float, settings: TrainSettings) -> None:
        """Take one step of AdamW.

        Parameters
        ----------
        step : int
            1 for the first one.
        learning_rate : float
            This step's rate.
        settings : TrainSettings
            For the optimizer's constants.
        """
        for part, decay in (
            (slice(0, self.n_decaying), settings.weight_decay),
            (slice(self.n_decaying, None), 0.0),
        ):
            if self.values[part].size:
                ops.adamw(
                    self.values[part],
                    self.grads[part],
                    self.m[part],
                    self.v[part],
                    step=step,
                    learning_rate=learning_rate,
                    beta1=settings.beta1,
                    beta2=settings.beta2,
                    eps=settings.eps,
                    decay=decay,
                )


def decays(name: str, array: np.ndarray) -> bool:
    """Tell whether weight decay pulls an array to zero.

    Parameters
    ----------
    name : str
        Its full name.
    array : ndarray
        The array.

    Returns
    -------
    bool
        True for matrices; False for vectors (norms and biases among them) and for a quantizer's scales.
    """
    return array.ndim > 1 and name.rpartition(".")[2] != "scales"


def matching(names: Collection[str], patterns: str, option: str) -> set[str]:
    """Return the names that match.

    Parameters
    ----------
    names : collection of str
        Full names of a model's arrays.
    patterns : str
        `fnmatch` patterns separated by commas; empty: none.
    option : str
        What they are for, in errors.

    Returns
    -------
    set of str
        The union over the patterns.

    Raises
    ------
    UsageError
        Code ``pattern_matches_nothing``: one of the patterns names no array.
    """
    found: set[str] = set()
    for pattern in (part.strip() for part in patterns.split(",") if part.strip()):
        matches = fnmatch.filter(names, pattern)
        if not matches:
            raise UsageError(
                "pattern_matches_nothing", f"{option}: no array matches {pattern!r}; the model has {starred(names)}"
            )
        found.update(matches)
    return found


def _unfrozen(arrays: Arrays, freeze: str) -> Arrays:
    """Return the arrays that no pattern of `freeze` matches; see `FlatParameters` for what it raises."""
    frozen = matching(arrays, freeze, "freeze")
    left = {name: array for name, array in arrays.items() if name not in frozen}
    if not left:
        raise ConfigError(
            "nothing_to_train", f"no array is left to train: the model has {len(arrays)}, freeze={freeze!r}"
        )
    return left


def norm(flat: np.ndarray) -> float:
    """Return the Euclidean norm of a vector.

    Parameters
    ----------
    flat : ndarray of float32, (n,)
        The vector.

    Returns
    -------
    float
        Summed in float32, in blocks, and again in float64 if that overflows: finite for every finite vector.

    Notes
    -----
    BLAS would wake threads of its own, which then spin beside those of the next kernels.
    """
    whole = flat.size // _BLOCK * _BLOCK
    blocks, rest = flat[:whole].reshape(-1, _BLOCK), flat[whole:]
    with np.errstate(over="ignore", invalid="ignore"):
        square = float(np.einsum("ij,ij->i", blocks, blocks).sum() + np.einsum("i,i", rest, rest))
        if not math.isfinite(square):
            square = float(np.square(flat, dtype=np.float64).sum())
    return math.sqrt(square)


def first_not_finite(arrays: Mapping[str, np.ndarray]) -> str | None:
    """Find a NaN or an infinity.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Looked through in order.

    Returns
    -------
    str or None
        Name of the first array that holds one; None: all numbers are finite.
    """
    return next((name for name, array in arrays.items() if not np.isfinite(array).all()), None)


def _trainable(path: str, weight: Weight) -> Arrays:
    arrays = weight.arrays()
    return {join(path, name): arrays[name] for name in weight.trainable()}


def _shapes(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}


def _padded(size: int) -> int:
    return -(-size // _LINE) * _LINE


def _zeros(size: int) -> np.ndarray:
    """Return float32 zeros that start on a cache line."""
    raw = np.zeros(size + _LINE, np.float32)
    skipped = -(raw.ctypes.data // raw.itemsize) % _LINE
    return raw[skipped : skipped + size]
