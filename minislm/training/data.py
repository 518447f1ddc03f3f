"""What a run learns from: batches of examples in an order that is a pure function of (seed, epoch, index).

So a run can resume anywhere. `TokenWindows` cuts a stream of tokens into windows; `training.tasks` has all else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minislm.errors import ConfigError, DataError, UsageError, listed
from minislm.layers.base import Context
from minislm.training.objective import NextToken, Objective
from minislm.weights.base import Arrays

ORDERS = ("permuted", "random")


@dataclass(frozen=True)
class Batch:
    """Examples to be run forward together, and what is asked of the model there. In each row padding comes last.

    Parameters
    ----------
    ids_BT : ndarray of int64, (B, T)
        Input tokens.
    targets_BT : ndarray of int64, (B, T), optional
        The token that follows each of them, -1 where that is not judged; None: none is asked for.
    lengths_B : ndarray of int64, (B,), optional
        Tokens of each row without its padding; None: no row is padded.
    types_BT : ndarray of int64, (B, T), optional
        Which of its texts each token belongs to; None: all to the first.
    source_BS : ndarray of int64, (B, S), optional
        What the encoder of an encoder-decoder reads.
    source_lengths_B : ndarray of int64, (B,), optional
        Tokens of each row of the source without its padding; None: no row is padded.
    labels : mapping of str to ndarray of int64
        What the heads of an encoder are asked, by their names: a class (B,), a class or token at each position (B, T),
        or the first and last token of a span (B, 2); -1 where nothing is judged.
    """

    ids_BT: np.ndarray
    targets_BT: np.ndarray | None = None
    lengths_B: np.ndarray | None = None
    types_BT: np.ndarray | None = None
    source_BS: np.ndarray | None = None
    source_lengths_B: np.ndarray | None = None
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def n_tokens(self) -> int:
        """Tokens that a model reads, on both sides, padding left out."""
        return _n_valid(self.ids_BT, self.lengths_B) + _n_valid(self.source_BS, self.source_lengths_B)

    def context(self, dropout: tuple[int, int, int] | None = None) -> Context:
        """Describe the forward pass over this batch.

        Parameters
        ----------
        dropout : tuple of int, optional
            As of `Context`; None: no dropout.

        Returns
        -------
        Context
            With the batch's lengths, types and source.
        """
        return Context(
            lengths_B=self.lengths_B,
            dropout=dropout,
            types_BT=self.types_BT,
            source_BS=self.source_BS,
            source_lengths_B=self.source_lengths_B,
        )


def _n_valid(ids: np.ndarray | None, lengths_B: np.ndarray | None) -> int:
    if ids is None:
        return 0
    return ids.size if lengths_B is None else int(lengths_B.sum())


class Examples(ABC):
    """Something that batches are made of, each a pure function of what is asked for.

    Attributes
    ----------
    objective : Objective
        What is asked of a model on such examples, unless a run asks for something else.
    """

    objective: Objective = NextToken()

    @property
    @abstractmethod
    def n_examples(self) -> int:
        """Examples of an epoch."""

    @property
    @abstractmethod
    def n_tokens(self) -> int:
        """Tokens of all examples."""

    @abstractmethod
    def batch(self, index: int, size: int, *, seed: int) -> Batch:
        """Return one batch of the endless sequence that `seed` stands for.

        Parameters
        ----------
        index : int
            Which batch, from 0.
        size : int
            Examples in a batch.
        seed : int
            Chooses the sequence.

        Returns
        -------
        Batch
            The same one for the same arguments, whatever was asked for before.
        """

    @abstractmethod
    def evaluation(self, size: int, batches: int = 0) -> Iterator[Batch]:
        """Yield fixed examples to evaluate on.

        Parameters
        ----------
        size : int
            Examples in a batch; the last batch may have fewer.
        batches : int
            Keep about so many batches of examples, spread evenly; 0: all examples.

        Yields
        ------
        Batch
            The same ones on every call.
        """

    @abstractmethod
    def check(self, model: Any) -> None:
        """Refuse a model that these examples were not made for.

        Parameters
        ----------
        model : Model
            To be trained or judged.

        Raises
        ------
        ConfigError
            Code ``config_invalid``: too few positions, or a head is missing or of another size.
        DataError
            Code ``bad_token_ids``: tokens that the model does not know.
        """

    @abstractmethod
    def arrays(self) -> Arrays:
        """Return all numbers that the batches are made of, so that a resumed run can tell whether they are the same.

        Returns
        -------
        dict of str to ndarray
            Not copied; options stand in the names.
        """

    def tokens_per_batch(self, size: int) -> float:
        """Tell how many tokens a batch has on average.

        Parameters
        ----------
        size : int
            Examples in a batch.

        Returns
        -------
        float
            Padding left out.
        """
        return min(size, self.n_examples) * self.n_tokens / self.n_examples


class TokenWindows(Examples):
    """A stream of tokens, cut into windows.

    Parameters
    ----------
    ids : ndarray of int, (n_tokens,)
        The tokens, of any whole-number dtype; a mapped file will do. They are not copied.
    context : int
        Input tokens in a window.
    order : {"permuted", "random"}
        ``"permuted"``: each epoch cuts the stream at another random offset and visits every window once, in an order of
        its own. ``"random"``: every window starts anywhere, each drawn on its own.

    Raises
    ------
    DataError
        Code ``text_too_short``: fewer than `context` + 1 tokens; ``bad_token_ids``: not one axis of whole numbers.
    UsageError
        Code ``bad_option``: `context` below 1, or an unknown order.
    """

    def __init__(self, ids: np.ndarray, context: int, order: str = "permuted") -> None:
        ids = np.asarray(ids)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise DataError("bad_token_ids", f"tokens must be whole numbers on one axis, not {ids.dtype} {ids.shape}")
        if context < 1 or order not in ORDERS:
            raise UsageError(
                "bad_option",
                f"windows take a context of 1 or more and an order of {listed(ORDERS)}, not {context} and {order!r}",
            )
        if len(ids) < context + 1:
            raise DataError(
                "text_too_short",
                f"windows of {context} tokens need at least {context + 1} tokens; the text has {len(ids)}. "
                "Give more text, or a smaller context",
            )
        self.ids = ids
        self.context = context
        self.order = order
        # One window less than would fit, where there are two or more, leaves room for every offset below `context`.
        self.n_windows = max(1, len(ids) // context - 1)
        self._epoch: tuple[tuple[int, int], np.ndarray] | None = None

    @property
    def n_examples(self) -> int:
        """Windows of an epoch."""
        return self.n_windows

    @property
    def n_tokens(self) -> int:
        """Number of tokens in the stream."""
        return len(self.ids)

    def batch(self, index: int, size: int, *, seed: int) -> Batch:
        """Return inputs and targets, (size, context) each."""
        if self.order == "random":
            starts = random_numbers(seed, index, size) % np.uint64(self.n_tokens - self.context)
            return self._cut(starts.astype(np.int64))
        numbers = np.arange(index * size, (index + 1) * size)
        epochs, places = np.divmod(numbers, self.n_windows)
        parts = [self._starts(seed, int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)]
        return self._cut(np.concatenate(parts))

    def evaluation(self, size: int, batches: int = 0) -> Iterator[Batch]:
        """Yield windows that lie side by side from the beginning of the stream."""
        n = (self.n_tokens - 1) // self.context
        kept = min(n, batches * size) if batches else n
        starts = np.arange(kept) * n // kept * self.context
        for i in range(0, kept, size):
            yield self._cut(starts[i : i + size])

    def check(self, model: Any) -> None:
        """Refuse a model that sees the tokens it should predict, or has a shorter context or a smaller vocabulary."""
        if hasattr(model.config, "heads"):
            raise ConfigError(
                "config_invalid",
                f"next tokens are for a model that reads from left to right, and this one is of type "
                f"{model.config.type!r}. Take masked words",
            )
        if self.context > model.config.context:
            raise ConfigError(
                "config_invalid",
                f"windows of {self.context} tokens do not fit the model's context of {model.config.context}",
            )
        check_ids(self.ids, model)

    def arrays(self) -> Arrays:
        """Return the stream, under the options."""
        return {f"{self.context} {self.order}": self.ids}

    def tokens_per_batch(self, size: int) -> float:
        """Tell how many tokens every batch has."""
        return size * self.context

    def _starts(self, seed: int, epoch: int) -> np.ndarray:
        """Return where the windows of an epoch start, in its order; the latest epoch is remembered."""
        if self._epoch is None or self._epoch[0] != (seed, epoch):
            raw = random_numbers(seed, epoch, self.n_windows + 1)
            slack = min(self.context - 1, self.n_tokens - 1 - self.n_windows * self.context)
            offset = int(raw[-1] % np.uint64(slack + 1))
            self._epoch = (seed, epoch), np.argsort(raw[:-1], kind="stable") * self.context + offset
        return self._epoch[1]

    def _cut(self, starts: np.ndarray) -> Batch:
        windows_BT = self.ids[starts[:, None] + np.arange(self.context + 1)].astype(np.int64)
        return Batch(np.ascontiguousarray(windows_BT[:, :-1]), np.ascontiguousarray(windows_BT[:, 1:]))


@dataclass(frozen=True)
class TrainingData:
    """What a run learns from, what it is judged on, and what is asked of the model there.

    Parameters
    ----------
    train : Examples
        To learn from.
    validation : Examples, optional
        Held out; None: no evaluation.
    objective : Objective, optional
        What training makes small, unless a method has a loss of its own; default: that of the examples.
    """

    train: Examples
    validation: Examples | None = None
    objective: Any = None  # an Objective once it is filled in

    def __post_init__(self) -> None:
        if self.objective is None:
            object.__setattr__(self, "objective", self.train.objective)


def check_ids(ids: np.ndarray, model: Any) -> None:
    """Refuse tokens that a model does not know.

    Parameters
    ----------
    ids : ndarray of int
        At least one token.
    model : Model
        Has the vocabulary.

    Raises
    ------
    DataError
        Code ``bad_token_ids``.
    """
    lowest, highest = int(ids.min()), int(ids.max())
    if lowest < 0 or highest >= model.config.vocab_size:
        raise DataError(
            "bad_token_ids",
            f"tokens run from {lowest} to {highest}; the model knows 0..{model.config.vocab_size - 1}. "
            "Encode the text with the model's own tokenizer, and leave out tokens that only the tokenizer has",
        )


def check_length(lengths: np.ndarray, model: Any) -> None:
    """Refuse a model with too few positions.

    Parameters
    ----------
    lengths : ndarray of int
        Tokens of each example.
    model : Model
        To be trained.

    Raises
    ------
    ConfigError
        Code ``config_invalid``.
    """
    if lengths.max() > model.config.context:
        raise ConfigError(
            "config_invalid",
            f"examples of {lengths.max()} tokens do not fit the model's context of {model.config.context}",
        )


def random_numbers(seed: int, stream: int, size: int) -> np.ndarray:
    """Return random 64-bit numbers that no NumPy version changes.

    Parameters
    ----------
    seed, stream : int
        From 0 to 2**64 - 1; the numbers are a function of both.
    size : int
        How many.

    Returns
    -------
    ndarray of uint64, (size,)
        Evenly distributed.
    """
    raw: np.ndarray = np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw(size)
    return raw
