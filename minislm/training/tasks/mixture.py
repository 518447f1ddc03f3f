"""Mixture: several sets of examples, learned side by side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minislm.errors import UsageError
from minislm.training.data import Batch, Examples, random_numbers
from minislm.weights.base import Arrays

TURNS = 3 << 56  # a stream of random numbers, apart from those of the parts


class Mixture(Examples):
    """Batches of several sets of examples, in turns.

    In each epoch every set goes through an epoch of its own, so that each has its share of the batches, in random
    turns. A batch holds examples of one set.

    Parameters
    ----------
    *parts : Examples
        At least one; for one model and one objective.

    Raises
    ------
    UsageError
        Code ``bad_option``: none, or their objectives differ.
    """

    def __init__(self, *parts: Examples) -> None:
        if not parts or any(part.objective != parts[0].objective for part in parts):
            raise UsageError("bad_option", "a mixture needs at least one set of examples, all with one objective")
        self.parts = parts
        self.objective = parts[0].objective

    @property
    def n_examples(self) -> int:
        """Examples of all parts."""
        return sum(part.n_examples for part in self.parts)

    @property
    def n_tokens(self) -> int:
        """Tokens of all parts."""
        return sum(part.n_tokens for part in self.parts)

    def batch(self, index: int, size: int, *, seed: int) -> Batch:
        """Return a batch of the part whose turn it is."""
        counts = [-(-part.n_examples // size) for part in self.parts]  # batches of an epoch
        epoch, place = divmod(index, sum(counts))
        order = np.argsort(random_numbers(seed, TURNS + epoch, sum(counts)), kind="stable")
        turns = np.repeat(np.arange(len(counts)), counts)[order]
        which = int(turns[place])
        earlier = int((turns[:place] == which).sum())
        return self.parts[which].batch(epoch * counts[which] + earlier, size, seed=seed)

    def evaluation(self, size: int, batches: int = 0) -> Iterator[Batch]:
        """Yield the examples of one part after the other, each with its share of `batches`."""
        for part in self.parts:
            share = batches * part.n_examples / self.n_examples
            yield from part.evaluation(size, max(1, round(share)) if batches else 0)

    def check(self, model: Any) -> None:
        """Refuse a model that one of the parts refuses."""
        for part in self.parts:
            part.check(model)

    def arrays(self) -> Arrays:
        """Return those of all parts."""
        return {f"{i} {name}": array for i, part in enumerate(self.parts) for name, array in part.arrays().items()}

    def tokens_per_batch(self, size: int) -> float:
        """Tell how many tokens a batch has on average over the parts."""
        counts = [-(-part.n_examples // size) for part in self.parts]
        tokens = [part.tokens_per_batch(size) for part in self.parts]
        return sum(n * t for n, t in zip(counts, tokens, strict=True)) / sum(counts)
