"""Where a model under construction gets its Weights and vectors from: fresh ones, those of a file, or nowhere yet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from minislm.errors import ConfigError, ModelFileError
from minislm.weights import build
from minislm.weights.base import Arrays, Weight, below, join
from minislm.weights.dense import Dense

MOST = 2**56  # numbers of a matrix: NumPy describes no more


class Parts(ABC):
    """Weights and vectors by path, as `Model.wired` asks for them."""

    @abstractmethod
    def matrix(self, path: str, n_outputs: int, n_inputs: int, *, scale: float = 0.02) -> Weight:
        """Give the Weight of a path.

        Parameters
        ----------
        path : str
            Full path, such as ``blocks.0.mlp.up.weight``.
        n_outputs, n_inputs : int
            Its shape, as the Config has it.
        scale : float
            Standard deviation of a fresh one.

        Returns
        -------
        Weight
            Of that shape.
        """

    @abstractmethod
    def vector(self, path: str, size: int, *, value: float) -> np.ndarray:
        """Give the vector of a path.

        Parameters
        ----------
        path : str
            Full path, such as ``final_norm.bias``.
        size : int
            Its length, as the Config has it.
        value : float
            What a fresh one is filled with.

        Returns
        -------
        ndarray of float, (size,)
            The vector.
        """


class RandomParts(Parts):
    """Fresh parameters: normal numbers for matrices, constants for vectors.

    Parameters
    ----------
    seed : int
        All numbers are a function of it and of the order in which parts are asked for.
    dtype : dtype
        The dtype of every array.
    """

    def __init__(self, seed: int, dtype: Any) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype

    def matrix(self, path: str, n_outputs: int, n_inputs: int, *, scale: float = 0.02) -> Weight:
        """Draw a Dense matrix."""
        w_OI = self.rng.standard_normal((n_outputs, n_inputs), dtype=np.float32)
        w_OI *= np.float32(scale)
        return Dense(w_OI.astype(self.dtype, copy=False))

    def vector(self, path: str, size: int, *, value: float) -> np.ndarray:
        """Fill a vector."""
        return np.full(size, value, self.dtype)


class NoParts(Parts):
    """Sizes without numbers: what a Config asks for, in arrays that take no memory."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}

    def matrix(self, path: str, n_outputs: int, n_inputs: int, *, scale: float = 0.02) -> Weight:
        """Note the shape; give one zero, seen from everywhere."""
        if n_outputs * n_inputs > MOST:
            raise ConfigError(
                "config_invalid", f"{path} would have {n_outputs} x {n_inputs} numbers; no file holds so many"
            )
        self.shapes[path] = (n_outputs, n_inputs)
        return Dense(np.broadcast_to(np.float32(0), (n_outputs, n_inputs)))

    def vector(self, path: str, size: int, *, value: float) -> np.ndarray:
        """Note the size; give one number, seen from everywhere."""
        self.shapes[path] = (size,)
        return np.broadcast_to(np.float32(value), (size,))


class StoredParts(Parts):
    """Parameters out of a file, each checked against the size that the Config declares.

    Parameters
    ----------
    specs : mapping of str to dict
        The spec of every Weight that is not plain Dense, by full path.
    arrays : mapping of str to ndarray
        Every stored array by full name.
    """

    def __init__(self, specs: Mapping[str, Mapping[str, Any]], arrays: Mapping[str, np.ndarray]) -> None:
        self.specs = specs
        self.arrays = arrays
        self.used: set[str] = set()

    def matrix(self, path: str, n_outputs: int, n_inputs: int, *, scale: float = 0.02) -> Weight:
        """Build the Weight of that path."""
        own = self._take(path)
        weight: Weight | None = None
        if path in self.specs:
            weight = build(self.specs[path], own)
        elif set(own) == {""} and own[""].ndim == 2:
            weight = Dense(own[""])
        if weight is None or weight.shape != (n_outputs, n_inputs):
            found = weight.shape if weight else {name: array.shape for name, array in own.items()}
            raise ModelFileError(
                "config_vs_weights", f"the config declares {path} as {(n_outputs, n_inputs)}; the file holds {found}"
            )
        return weight

    def vector(self, path: str, size: int, *, value: float) -> np.ndarray:
        """Return the vector of that path."""
        own = self._take(path)
        if set(own) != {""} or own[""].shape != (size,):
            found = {name: array.shape for name, array in own.items()}
            raise ModelFileError(
                "config_vs_weights", f"the config declares {path} as {(size,)}; the file holds {found}"
            )
        return own[""]

    def finish(self) -> None:
        """Refuse arrays that no part of the model asked for."""
        if left := sorted(set(self.arrays) - self.used):
            raise ModelFileError(
                "config_vs_weights",
                f"the file holds {len(left)} arrays that the config has no place for, such as {left[0]}",
            )

    def _take(self, path: str) -> Arrays:
        own = below(path, self.arrays)
        if not own:
            raise ModelFileError("config_vs_weights", f"the config asks for {path}; the file does not hold it")
        self.used.update(join(path, name) for name in own)
        return own
