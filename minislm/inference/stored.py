"""Stored: the keys or the values of one layer, in the dtype of a cache."""

from __future__ import annotations

import copy

import numpy as np

from minislm.dispatch import ops


class Stored:
    """Rows of heads for every slot and position: float32, float16, or signed bytes with a scale for each head of a row.

    Parameters
    ----------
    shape : tuple of int, (C, S, G, K)
        Slots, positions, heads and their width.
    dtype : str
        One of `ops.packed.STORED`.

    Attributes
    ----------
    array : ndarray, (C, S, G, K)
        What is stored.
    scales : ndarray of float32, (C, S, G), or None
        What bytes are multiplied by.
    """

    def __init__(self, shape: tuple[int, int, int, int], dtype: str) -> None:
        self.array = np.zeros(shape, dtype)
        self.scales = np.zeros(shape[:3], np.float32) if dtype == "int8" else None

    def first(self, n_rows: int) -> Stored:
        """View the first positions of every slot.

        Parameters
        ----------
        n_rows : int
            How many.

        Returns
        -------
        Stored
            What is written to it is written here.
        """
        part = copy.copy(self)
        part.array = self.array[:, :n_rows]
        part.scales = None if self.scales is None else self.scales[:, :n_rows]
        return part

    def end_to_end(self) -> tuple[np.ndarray, np.ndarray | None]:
        """View the slots one after the other.

        Returns
        -------
        rows_SGK : ndarray, (C * S, G, K)
            What is stored.
        scales_SG : ndarray of float32, (C * S, G), or None
            Its scales.
        """
        rows_SGK = self.array.reshape(-1, *self.array.shape[2:])
        return rows_SGK, None if self.scales is None else self.scales.reshape(rows_SGK.shape[:2])

    def write(self, rows_N: np.ndarray | None, x_NGK: np.ndarray) -> None:
        """Write some rows.

        Parameters
        ----------
        rows_N : ndarray of int64, (N,), optional
            Their places, counted over all slots. None: the first N, in order.
        x_NGK : ndarray of float32, (N, G, K)
            Keys or values.
        """
        ops.store_rows(x_NGK, rows_N, *self.end_to_end())

    def read(self, slots_B: np.ndarray, longest: int) -> np.ndarray:
        """Return the first rows of some slots.

        Parameters
        ----------
        slots_B : ndarray of int64, (B,)
            Slots.
        longest : int
            Rows of each.

        Returns
        -------
        ndarray of float32, (B, longest, G, K)
            A view where float32 is stored and the slots are neighbours in order.
        """
        slots: slice | np.ndarray = slots_B
        if slots_B.size and (np.diff(slots_B) == 1).all():
            slots = slice(int(slots_B[0]), int(slots_B[-1]) + 1)
        read: np.ndarray = self.array[slots, :longest].astype(np.float32, copy=False)
        return read if self.scales is None else read * self.scales[slots, :longest, :, None]

    def clear(self, slot: int, first: int, last: int) -> None:
        """Put zeros in place of some rows of a slot: a hidden key still meets its value as 0 * v.

        Parameters
        ----------
        slot : int
            The slot.
        first, last : int
            Rows from `first` to before `last`.
        """
        self.array[slot, first:last] = 0
        if self.scales is not None:
            self.scales[slot, first:last] = 0.0

    def copy(self, slots_B: np.ndarray, sources_B: np.ndarray, longest: int) -> None:
        """Let slots hold what other slots hold, all at once.

        Parameters
        ----------
        slots_B : ndarray of int64, (B,)
            Slots that are overwritten.
        sources_B : ndarray of int64, (B,)
            Slots that are copied.
        longest : int
            Rows of each.
        """
        for array in (self.array, self.scales):
            if array is not None:
                array[slots_B, :longest] = array[sources_B, :longest]
