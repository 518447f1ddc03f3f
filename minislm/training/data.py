"""Token windows in an order that is a pure function of (seed, epoch, index), so that a run can resume anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minislm.errors import DataError, UsageError

ORDERS = ("permuted", "random")


class Batch(NamedTuple):
    """Windows and what follows them.

    Parameters
    ----------
    ids_BT : ndarray of int64, (B, T)
        Input tokens.
    targets_BT : ndarray of int64, (B, T)
        The token after each of them.
    """

    ids_BT: np.ndarray
    targets_BT: np.ndarray


class TokenWindows:
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
                f"windows take a context of 1 or more and an order of {ORDERS}, not {context} and {order!r}",
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
    def n_tokens(self) -> int:
        """Number of tokens in the stream."""
        return len(self.ids)

    def batch(self, index: int, size: int, *, seed: int) -> Batch:
        """Return one batch of the endless sequence that `seed` stands for.

        Parameters
        ----------
        index : int
            Which batch, from 0.
        size : int
            Windows in a batch.
        seed : int
            Chooses the sequence.

        Returns
        -------
        Batch
            Inputs and targets, (size, context) each.
        """
        if self.order == "random":
            starts = _random(seed, index, size) % np.uint64(self.n_tokens - self.context)
            return self._cut(starts.astype(np.int64))
        numbers = np.arange(index * size, (index + 1) * size)
        epochs, places = np.divmod(numbers, self.n_windows)
        parts = [self._starts(seed, int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)]
        return self._cut(np.concatenate(parts))

    def evaluation(self, size: int, batches: int = 0) -> Iterator[Batch]:
        """Yield fixed windows to evaluate on, side by side from the beginning of the stream.

        Parameters
        ----------
        size : int
            Windows in a batch; the last batch may have fewer.
        batches : int
            Keep about so many batches of windows, spread evenly over the stream; 0: all windows.

        Yields
        ------
        Batch
            The same ones on every call.
        """
        n = (self.n_tokens - 1) // self.context
        kept = min(n, batches * size) if batches else n
        starts = np.arange(kept) * n // kept * self.context
        for i in range(0, kept, size):
            yield self._cut(starts[i : i + size])

    def _starts(self, seed: int, epoch: int) -> np.ndarray:
        """Return where the windows of an epoch start, in its order; the latest epoch is remembered."""
        if self._epoch is None or self._epoch[0] != (seed, epoch):
            raw = _random(seed, epoch, self.n_windows + 1)
            slack = min(self.context - 1, self.n_tokens - 1 - self.n_windows * self.context)
            offset = int(raw[-1] % np.uint64(slack + 1))
            self._epoch = (seed, epoch), np.argsort(raw[:-1], kind="stable") * self.context + offset
        return self._epoch[1]

    def _cut(self, starts: np.ndarray) -> Batch:
        windows_BT = self.ids[starts[:, None] + np.arange(self.context + 1)].astype(np.int64)
        return Batch(np.ascontiguousarray(windows_BT[:, :-1]), np.ascontiguousarray(windows_BT[:, 1:]))


@dataclass(frozen=True)
class TrainingData:
    """What a run learns from and what it is judged on.

    Parameters
    ----------
    train : TokenWindows
        To learn from.
    validation : TokenWindows, optional
        Held out; None: no evaluation.
    """

    train: TokenWindows
    validation: TokenWindows | None = None


def _random(seed: int, stream: int, size: int) -> np.ndarray:
    """Return `size` random 64-bit numbers, a function of seed and stream that no NumPy version changes."""
    raw: np.ndarray = np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw(size)
    return raw
