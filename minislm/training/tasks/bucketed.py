"""Bucketed: examples of different lengths, put into batches with others of about the same length."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import numpy as np

from minislm.training.data import Batch, Examples, random_numbers

POOL = 64  # batches whose examples are sorted by length among themselves: little padding, and still much chance


class Bucketed(Examples):
    """Examples of different lengths.

    Each epoch visits every example once, in an order of its own. The order is cut into pools of `POOL` batches, the
    examples of a pool are sorted by length and cut into batches, and the batches of all pools are shuffled. The last
    batch of an epoch may be smaller.

    Parameters
    ----------
    *lengths : ndarray of int64, (n,)
        Tokens of each example, on each side; those of the first count most in the order.
    """

    def __init__(self, *lengths: np.ndarray) -> None:
        self.lengths = lengths
        self._epoch: tuple[tuple[int, int, int], list[np.ndarray]] | None = None

    @property
    def n_examples(self) -> int:
        """Number of examples."""
        return len(self.lengths[0])

    @property
    def n_tokens(self) -> int:
        """Tokens of all examples, on all sides."""
        return int(sum(lengths.sum() for lengths in self.lengths))

    def batch(self, index: int, size: int, *, seed: int) -> Batch:
        """Return examples of about the same length, padded to the longest."""
        epoch, place = divmod(index, -(-self.n_examples // size))
        return self.take(self._batches(seed, epoch, size)[place])

    def evaluation(self, size: int, batches: int = 0) -> Iterator[Batch]:
        """Yield the examples by length."""
        n = self.n_examples
        kept = min(n, batches * size) if batches else n
        rows = np.arange(kept) * n // kept
        rows = rows[np.lexsort([lengths[rows] for lengths in reversed(self.lengths)])]
        for i in range(0, kept, size):
            yield self.take(rows[i : i + size])

    @abstractmethod
    def take(self, rows: np.ndarray) -> Batch:
        """Put some examples together.

        Parameters
        ----------
        rows : ndarray of int, (B,)
            Which.

        Returns
        -------
        Batch
            Padded to the longest of them.
        """

    def _batches(self, seed: int, epoch: int, size: int) -> list[np.ndarray]:
        """Return the examples of each batch of an epoch; the latest epoch is remembered."""
        if self._epoch is None or self._epoch[0] != (seed, epoch, size):
            n = self.n_examples
            raw = random_numbers(seed, epoch, n + -(-n // size))
            shuffled = np.argsort(raw[:n], kind="stable")
            pools = np.arange(n) // (POOL * size)
            order = shuffled[np.lexsort([*(lengths[shuffled] for lengths in reversed(self.lengths)), pools])]
            batches = [order[i : i + size] for i in range(0, n, size)]
            self._epoch = (seed, epoch, size), [batches[i] for i in np.argsort(raw[n:], kind="stable")]
        return self._epoch[1]
