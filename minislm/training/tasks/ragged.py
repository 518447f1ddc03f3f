"""Ragged: rows of different lengths, kept one after the other and padded when they are taken together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of whole numbers.

    Parameters
    ----------
    values : ndarray of int, (total,)
        All rows, one after the other.
    lengths : ndarray of int64, (n,)
        Numbers of each row.
    """

    values: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Self:
        """Put rows together.

        Parameters
        ----------
        rows : sequence of sequences of int
            At least one.

        Returns
        -------
        Ragged
            With the same numbers, as int32.
        """
        values = np.concatenate([np.asarray(row, np.int32) for row in rows])
        return cls(values, np.array([len(row) for row in rows], np.int64))

    @cached_property
    def starts(self) -> np.ndarray:
        """Where each row begins in `values`, (n,)."""
        starts: np.ndarray = np.cumsum(self.lengths) - self.lengths
        return starts

    def padded(self, rows: np.ndarray, fill: int) -> np.ndarray:
        """Take some rows together.

        Parameters
        ----------
        rows : ndarray of int, (B,)
            Which.
        fill : int
            What stands after the end of each row.

        Returns
        -------
        ndarray of int64, (B, T)
            T is the length of the longest of them.
        """
        lengths_B, places = self.lengths[rows], np.arange(self.lengths[rows].max())
        inside_BT = places < lengths_B[:, None]
        padded_BT = np.full(inside_BT.shape, fill, np.int64)
        padded_BT[inside_BT] = self.values[(self.starts[rows][:, None] + places)[inside_BT]]
        return padded_BT
