"""What every model shares: a Layer from token ids to logits, with a Config."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from minislm.config import Config
from minislm.errors import DataError, ModelFileError
from minislm.layers.base import PLAIN, Context, Grads, Layer, Tape
from minislm.weights import build
from minislm.weights.base import Arrays, Weight, below, join
from minislm.weights.dense import Dense


class Parts(Protocol):
    """Where a model under construction gets its Weights and vectors from."""

    def matrix(self, path: str, n_outputs: int, n_inputs: int, *, scale: float = 0.02) -> Weight:
        """Return the Weight of that path, O x I; `scale` is the standard deviation of a fresh one."""

    def vector(self, path: str, size: int, *, value: float) -> np.ndarray:
        """Return the vector of that path; `value` is what a fresh one is filled with."""


class RandomParts:
    """Fresh parameters: normal numbers for matrices, constants for vectors.

    Parameters
    ----------
    seed : int
        All numbers are a function of it and of the order in which parts are asked for.
    dtype : dtype
        Of every array.
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


class StoredParts:
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
        if path in self.specs:
            weight = build(self.specs[path], own)
        else:
            weight = Dense(own[""]) if set(own) == {""} and own[""].ndim == 2 else None
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


@dataclass(frozen=True)
class Model(Layer):
    """A Layer made of layers; each architecture is a subclass in a file of its own.

    Parameters
    ----------
    path : str
        Empty: names in a model start at its own parts.
    config : Config
        Sizes and choices.
    """

    config: Config

    @classmethod
    @abstractmethod
    def wired(cls, config: Any, parts: Parts) -> Self:
        """Make the model that `config` describes out of the Weights and vectors that `parts` gives by path."""

    @classmethod
    def create(cls, config: Any, seed: int = 0, dtype: Any = np.float32) -> Self:
        """Make a model with random parameters.

        Parameters
        ----------
        config : Config
            Sizes and choices.
        seed : int
            The parameters are a function of it.
        dtype : dtype
            float32, or float64 for comparisons.

        Returns
        -------
        Model
            The model.
        """
        return cls.wired(config, RandomParts(seed, dtype))

    @abstractmethod
    def hidden(self, ids: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Return the last hidden state (B, T, D), normalized as the head reads it."""

    @abstractmethod
    def forward(self, x: np.ndarray, context: Context = PLAIN, tape: Tape | None = None) -> np.ndarray:
        """Return the logits (B, T, V) of token ids (B, T)."""

    @abstractmethod
    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Add every parameter's gradient to `grads`, given the logits' gradient (B, T, V)."""

    def specs(self) -> dict[str, dict[str, Any]]:
        """Return the spec of every Weight by its full path, as JSON."""
        return {path: weight.spec() for path, weight in self.weights().items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all stored arrays."""
        return sum(array.nbytes for array in self.arrays().values())

    @property
    def n_parameters(self) -> int:
        """Number of stored numbers that a weight or vector holds, zeros of sparse storage not counted."""
        return sum(part.size if isinstance(part, np.ndarray) else part.n_parameters for _, part in self.parts())

    def checked(self, ids: np.ndarray) -> np.ndarray:
        """Return token ids as int64 (B, T), after a check of their shape and range.

        Raises
        ------
        DataError
            Code ``bad_token_ids``: not whole numbers, not two axes, or outside the vocabulary.
        """
        ids = np.asarray(ids)
        if ids.ndim != 2 or ids.dtype.kind not in "iu":
            raise DataError("bad_token_ids", f"token ids must be whole numbers (B, T), not {ids.dtype} {ids.shape}")
        if ids.size and not (ids.min() >= 0 and ids.max() < self.config.vocab_size):
            raise DataError(
                "bad_token_ids",
                f"token ids must lie in 0..{self.config.vocab_size - 1}; these run from {ids.min()} to {ids.max()}",
            )
        return ids.astype(np.int64, copy=False)


def count_parameters(part: Any) -> int:
    """Count the numbers that a Weight or vector holds, whatever their storage; masks and indices do not count."""
    return part.size if isinstance(part, np.ndarray) else part.n_parameters
