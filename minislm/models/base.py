"""What every model shares: a Layer from token ids to what its heads say, with a Config."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from minislm.config import Config
from minislm.errors import DataError, GenerationError
from minislm.layers.base import PLAIN, Context, Grads, Layer, Tape
from minislm.models.parts import NoParts, Parts, RandomParts


class Stack(NamedTuple):
    """Blocks in a row.

    Parameters
    ----------
    path : str
        Of the blocks without their numbers, such as ``"blocks"``.
    sizes : str
        The field of the Config that has a `LayerSizes` for each.
    reads_source : bool
        Whether they read the source of an encoder-decoder, not the ids that `forward` is given.
    """

    path: str
    sizes: str
    reads_source: bool = False


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

    stacks: ClassVar[tuple[Stack, ...]] = (Stack("blocks", "layers"),)

    config: Config

    @classmethod
    @abstractmethod
    def wired(cls, config: Any, parts: Parts) -> Self:
        """Make the model that a Config describes.

        Parameters
        ----------
        config : Config
            Sizes and choices.
        parts : Parts
            Gives its Weights and vectors by path.

        Returns
        -------
        Model
            The model.
        """

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
            Either float32, or float64 for comparisons.

        Returns
        -------
        Model
            The model.
        """
        return cls.wired(config, RandomParts(seed, dtype))

    @classmethod
    def shapes(cls, config: Any) -> dict[str, tuple[int, ...]]:
        """Tell what a model of a Config stores, without making it.

        Parameters
        ----------
        config : Config
            Sizes and choices.

        Returns
        -------
        dict of str to tuple of int
            The shape of every plain Weight and vector, by full path.
        """
        parts = NoParts()
        cls.wired(config, parts)
        return parts.shapes

    @abstractmethod
    def hidden(self, ids: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Compute what the head reads.

        Parameters
        ----------
        ids : ndarray of int, (B, T)
            Token ids.
        context : Context
            The pass.
        tape : Tape, optional
            As in `forward`.

        Returns
        -------
        ndarray, (B, T, D)
            Last hidden states, normalized.
        """

    @abstractmethod
    def forward(self, x: np.ndarray, context: Context = PLAIN, tape: Tape | None = None) -> Any:
        """Return the logits (B, T, V) of token ids (B, T); an encoder, a dictionary of each head's logits."""

    @abstractmethod
    def backward(self, dy: Any, tape: Tape, grads: Grads) -> np.ndarray:
        """Add every parameter's gradient to `grads`, given the gradient of what `forward` returned."""

    def parts(self) -> Iterator[tuple[str, Any]]:
        """Walk over everything that the model stores, a part that two layers share once, under its first path."""
        yield from dict(super().parts()).items()

    def specs(self) -> dict[str, dict[str, Any]]:
        """Collect the specs of the Weights.

        Returns
        -------
        dict of str to dict
            JSON by full path.
        """
        return {path: weight.spec() for path, weight in self.weights().items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all stored arrays."""
        return sum(array.nbytes for array in self.arrays().values())

    @property
    def n_parameters(self) -> int:
        """Number of stored numbers that a weight or vector holds, zeros of sparse storage not counted."""
        return sum(part.size if isinstance(part, np.ndarray) else part.n_parameters for _, part in self.parts())

    def checked(self, ids: np.ndarray, config: Config | None = None) -> np.ndarray:
        """Check token ids.

        Parameters
        ----------
        ids : ndarray of int, (B, T)
            As they came.
        config : Config, optional
            Whose vocabulary; None: the model's.

        Returns
        -------
        ndarray of int64, (B, T)
            The same, ready to be looked up.

        Raises
        ------
        DataError
            Code ``bad_token_ids``: not whole numbers, not two axes, or outside the vocabulary.
        """
        ids = np.asarray(ids)
        if ids.ndim != 2 or ids.dtype.kind not in "iu":
            raise DataError("bad_token_ids", f"token ids must be whole numbers (B, T), not {ids.dtype} {ids.shape}")
        vocab_size = (config or self.config).vocab_size
        if ids.size and not (ids.min() >= 0 and ids.max() < vocab_size):
            raise DataError(
                "bad_token_ids",
                f"token ids must lie in 0..{vocab_size - 1}; these run from {ids.min()} to {ids.max()}",
            )
        return ids.astype(np.int64, copy=False)

    def places(self, ids_BT: np.ndarray, context: Context) -> np.ndarray:
        """Tell the position of each token.

        Parameters
        ----------
        ids_BT : ndarray of int, (B, T)
            New tokens.
        context : Context
            The pass, whose cache tells how many came before.

        Returns
        -------
        ndarray of int64, (B, T)
            Positions.

        Raises
        ------
        GenerationError
            Code ``context_length_exceeded``: one lies outside of the model's context.
        """
        positions_BT = context.starts(len(ids_BT))[:, None] + np.arange(ids_BT.shape[1])
        if positions_BT.size and positions_BT.max() >= self.config.context:
            raise GenerationError(
                "context_length_exceeded",
                f"position {positions_BT.max()} lies outside the model's context of {self.config.context} positions; "
                "pass fewer tokens",
            )
        return positions_BT


@dataclass(frozen=True)
class TokenModel(Model):
    """A Model with one head, which rates every token of its vocabulary as the next one.

    Head and body can be run one after the other, so that a loss need not hold the logits of all rows at once.

    Parameters
    ----------
    path, config : str, Config
        As of every `Model`.
    """

    @abstractmethod
    def logits(self, h: np.ndarray, context: Context = PLAIN, tape: Tape | None = None) -> np.ndarray:
        """Run the head.

        Parameters
        ----------
        h : ndarray, (..., D)
            What `hidden` returned, or some rows of it.
        context, tape : Context, Tape
            As in `forward`.

        Returns
        -------
        ndarray, (..., V)
            Logits.
        """

    @abstractmethod
    def logits_backward(self, dlogits: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Undo `logits`.

        Parameters
        ----------
        dlogits : ndarray, (..., V)
            Gradient of the logits.
        tape, grads : Tape, Grads
            As in `backward`.

        Returns
        -------
        ndarray, (..., D)
            Gradient of the hidden states.
        """

    @abstractmethod
    def hidden_backward(self, dh: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Undo `hidden`.

        Parameters
        ----------
        dh : ndarray, (B, T, D)
            Gradient of the last hidden states.
        tape, grads : Tape, Grads
            As in `backward`.

        Returns
        -------
        ndarray, (B, T, D)
            Gradient of the embedded tokens.
        """

    def forward(self, x: np.ndarray, context: Context = PLAIN, tape: Tape | None = None) -> np.ndarray:
        """Return the logits (B, T, V) of token ids (B, T)."""
        return self.logits(self.hidden(x, context, tape), context, tape)

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Read `forward` upwards; return the gradient of the embedded tokens, (B, T, D)."""
        return self.hidden_backward(self.logits_backward(dy, tape, grads), tape, grads)


def count_parameters(part: Any) -> int:
    """Count the numbers that a Weight or vector holds.

    Parameters
    ----------
    part : Weight or ndarray
        Of any storage.

    Returns
    -------
    int
        Stored numbers; masks and indices do not count.
    """
    return part.size if isinstance(part, np.ndarray) else part.n_parameters
