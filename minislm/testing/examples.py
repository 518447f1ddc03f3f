"""Examples with something to learn in them, for a small model of any family."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minislm.models.base import Model
from minislm.models.encoder import EncoderConfig
from minislm.models.transformer import TransformerConfig
from minislm.training.data import Batch, Examples, TokenWindows, TrainingData
from minislm.training.objective import NOT_JUDGED, NextToken, Tasks
from minislm.weights.base import Arrays


class Rows(Examples):
    """Examples that are the rows of one large batch.

    Parameters
    ----------
    whole : Batch
        All examples.
    objective : Objective
        What is asked of a model.
    """

    def __init__(self, whole: Batch, objective: Any) -> None:
        self.whole, self.objective = whole, objective

    @property
    def n_examples(self) -> int:
        """Rows of the batch."""
        return len(self.whole.ids_BT)

    @property
    def n_tokens(self) -> int:
        """Tokens of the batch."""
        return self.whole.n_tokens

    def batch(self, index: int, size: int, *, seed: int) -> Batch:
        """Return rows drawn on their own."""
        rows = np.random.default_rng([seed, index]).integers(0, self.n_examples, size)
        return self._cut(rows)

    def evaluation(self, size: int, batches: int = 0) -> Iterator[Batch]:
        """Yield the rows in order."""
        kept = min(self.n_examples, batches * size) if batches else self.n_examples
        for first in range(0, kept, size):
            yield self._cut(np.arange(first, min(first + size, kept)))

    def check(self, model: Any) -> None:
        """Take any model."""

    def arrays(self) -> Arrays:
        """Return all arrays of the batch."""
        fields = {name: array for name, array in vars(self.whole).items() if isinstance(array, np.ndarray)}
        return {**fields, **{f"labels {name}": array for name, array in self.whole.labels.items()}}

    def _cut(self, rows: np.ndarray) -> Batch:
        """Return some rows, no longer than the longest of them."""
        arrays = {name: array[rows] for name, array in vars(self.whole).items() if isinstance(array, np.ndarray)}
        labels = {name: array[rows] for name, array in self.whole.labels.items()}
        longest = {"T": int(arrays["lengths_B"].max()), "S": int(arrays.get("source_lengths_B", np.ones(1)).max())}
        for name, array in arrays.items():
            if array.ndim == 2:
                arrays[name] = array[:, : longest[name[-1]]]
        per_token = {name: array[:, : longest["T"]] for name, array in labels.items() if array.ndim == 2}
        return Batch(**arrays, labels={**labels, **per_token})


def sample_data(model: Model, seed: int = 0) -> TrainingData:
    """Make examples for a small model.

    Parameters
    ----------
    model : Model
        Of any family; lends its vocabulary, context and heads.
    seed : int
        The examples are a function of it.

    Returns
    -------
    TrainingData
        For a decoder tokens of which each mostly follows from the one before; for an encoder labels that its tokens
        tell; for an encoder-decoder targets that repeat their source. Rows of the last two have different lengths.
    """
    config: Any = model.config
    rng = np.random.default_rng(seed)
    train: Examples
    validation: Examples
    if isinstance(config, EncoderConfig):
        train, validation = (Rows(_labelled(config, rng, n), Tasks()) for n in (96, 24))
    elif isinstance(config, TransformerConfig):
        train, validation = (Rows(_repeated(config, rng, n), NextToken()) for n in (96, 24))
    else:
        ids = np.cumsum(rng.choice([1, 1, 1, 2, 5], 60 * config.context)) % config.vocab_size
        parts = np.split(ids, [len(ids) * 4 // 5])
        train, validation = (TokenWindows(part, config.context) for part in parts)
    return TrainingData(train, validation)


def _lengths(rng: np.random.Generator, n_rows: int, longest: int) -> np.ndarray:
    lengths_B = rng.integers(2, longest + 1, n_rows)
    lengths_B[0] = longest
    return lengths_B


def _labelled(config: EncoderConfig, rng: np.random.Generator, n_rows: int) -> Batch:
    """Draw texts and, for each head, labels that follow from the tokens."""
    ids_BT = rng.integers(0, config.vocab_size, (n_rows, config.context))
    lengths_B = _lengths(rng, n_rows, config.context)
    valid_BT = np.arange(config.context) < lengths_B[:, None]
    types_BT = rng.integers(0, config.n_types, ids_BT.shape) if config.n_types else None
    labels: dict[str, np.ndarray] = {}
    for head in config.heads:
        if head.kind == "sequence":
            labels[head.name] = ids_BT[:, 0] % len(head.labels)
        elif head.kind == "token":
            labels[head.name] = np.where(valid_BT, ids_BT % len(head.labels), NOT_JUDGED)
        elif head.kind == "masked":
            labels[head.name] = np.where(valid_BT & (rng.random(ids_BT.shape) < 0.3), ids_BT, NOT_JUDGED)
        else:
            first_B = np.where(valid_BT, ids_BT, -1).argmax(axis=1)
            labels[head.name] = np.stack([first_B, np.minimum(first_B + 1, lengths_B - 1)], axis=1)
    return Batch(np.where(valid_BT, ids_BT, 0), lengths_B=lengths_B, types_BT=types_BT, labels=labels)


def _repeated(config: TransformerConfig, rng: np.random.Generator, n_rows: int) -> Batch:
    """Draw sources and targets that are equal to them; token 0 ends both."""
    lengths_B = _lengths(rng, n_rows, config.context)
    valid_BS = np.arange(config.context) < lengths_B[:, None]
    source_BS = np.where(valid_BS, rng.integers(1, config.vocab_size, valid_BS.shape), 0)
    source_BS[np.arange(n_rows), lengths_B - 1] = 0
    ids_BT = np.where(valid_BS, np.roll(source_BS, 1, axis=1), 0)
    ids_BT[:, 0] = 0
    targets_BT = np.where(valid_BS, source_BS, NOT_JUDGED)
    return Batch(ids_BT, targets_BT, lengths_B, source_BS=source_BS, source_lengths_B=lengths_B)
