"""Checks at the border of a kernel, shared by the Numba and the Cython versions."""

from __future__ import annotations

from typing import Any

import numpy as np

FLOAT32 = np.dtype(np.float32)
INT64 = np.dtype(np.int64)


def checked(array: Any, name: str, n_axes: int | None = None, dtype: np.dtype = FLOAT32) -> np.ndarray:
    """Return `array` if it is C-contiguous and aligned, else such a copy; TypeError or ValueError if it is wrong."""
    if type(array) is not np.ndarray:
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{name} must be a NumPy array of {dtype}, not {type(array).__name__}")
        array = array.view(np.ndarray)
    if array.dtype != dtype:
        raise TypeError(f"{name} must be {dtype}, not {array.dtype}")
    if n_axes is not None and array.ndim != n_axes:
        raise ValueError(f"{name} must have {n_axes} axes; its shape is {array.shape}")
    flags = array.flags
    if not (flags.c_contiguous and flags.aligned):
        return np.array(array, order="C")
    return array


def same_shape(array: np.ndarray, name: str, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless the array has that shape."""
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, not {array.shape}")


def integers(array: Any, name: str, n_axes: int) -> np.ndarray:
    """Return whole numbers as contiguous int64; the caller checks their range."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iu":
        raise TypeError(
            f"{name} must be a NumPy array of integers, not {getattr(array, 'dtype', type(array).__name__)}"
        )
    return checked(array.astype(INT64, copy=False), name, n_axes, INT64)


def in_range(array: np.ndarray, name: str, lowest: int, limit: int) -> None:
    """Raise IndexError unless all whole numbers are in [lowest, limit)."""
    if array.size and not (lowest <= array.min() and array.max() < limit):
        raise IndexError(f"{name} must be from {lowest} to {limit - 1}; it is from {array.min()} to {array.max()}")


def updated(array: Any, name: str, shape: tuple[int, ...]) -> None:
    """Raise unless the array can be updated in place: float32, of that shape, C-contiguous, aligned, writable."""
    if checked(array, name, len(shape)) is not array:
        raise ValueError(f"{name} is updated in place and must be C-contiguous")
    same_shape(array, name, shape)
    if not array.flags.writeable:
        raise ValueError(f"{name} is updated in place and must not be read-only")


def heads(n_queries: int, n_keys: int) -> None:
    """Raise ValueError unless the query heads can share the key heads evenly."""
    if not n_keys or n_queries % n_keys:
        raise ValueError(f"{n_queries} query heads cannot share {n_keys} key heads evenly")


def reach(window: int | None) -> int:
    """Return the attention window as kernels take it: 0 for none."""
    if window is None:
        return 0
    if window < 1:
        raise ValueError(f"window must be at least 1, not {window}")
    return window


def bound(cap: float | None) -> float:
    """Return the cap of scores as kernels take it: 0 for none."""
    if cap is None:
        return 0.0
    if not cap > 0:
        raise ValueError(f"cap must be above 0, not {cap}")
    return float(cap)


def biases(bias: Any, n_heads: int) -> np.ndarray | None:
    """Check the biases of distances; None: there are none."""
    if bias is None:
        return None
    bias = checked(bias, "bias", 2)
    if bias.shape[0] != n_heads or bias.shape[1] % 2 == 0:
        raise ValueError(f"bias must have {n_heads} rows and an odd number of columns; its shape is {bias.shape}")
    return bias


def cached_attention(q_BHK: Any, k_CSGK: Any, v_CSGK: Any, slots_B: Any, lengths_B: Any) -> tuple[np.ndarray, ...]:
    """Check the arrays of `ops.attention.attention_one`, the indices into the cache among them."""
    q, k, v = checked(q_BHK, "q", 3), checked(k_CSGK, "k", 4), checked(v_CSGK, "v", 4)
    slots, lengths = integers(slots_B, "slots", 1), integers(lengths_B, "lengths", 1)
    same_shape(k, "k", (*k.shape[:3], q.shape[2]))
    same_shape(v, "v", k.shape)
    same_shape(slots, "slots", q.shape[:1])
    same_shape(lengths, "lengths", q.shape[:1])
    in_range(slots, "slots", 0, k.shape[0])
    in_range(lengths, "lengths", 0, k.shape[1] + 1)
    heads(q.shape[1], k.shape[2])
    return q, k, v, slots, lengths


def output(out: np.ndarray | None, shape: tuple[int, ...], *inputs: np.ndarray) -> np.ndarray:
    """Return the array to compute into: `out` if a kernel can write into it directly, else a fresh one.

    `out` must be float32 of the right shape. It is written directly when it is C-contiguous, aligned and overlaps none
    of `inputs`; `delivered` copies otherwise.
    """
    if out is None:
        return np.empty(shape, FLOAT32)
    if not isinstance(out, np.ndarray) or out.dtype != FLOAT32:
        raise TypeError(f"out must be a NumPy array of float32, not {getattr(out, 'dtype', type(out).__name__)}")
    same_shape(out, "out", shape)
    flags = out.flags
    if not flags.writeable:
        raise ValueError("out is read-only")
    if not (flags.c_contiguous and flags.aligned) or any(np.may_share_memory(out, array) for array in inputs):
        return np.empty(shape, FLOAT32)
    return out


def delivered(result: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """Return `out` holding the result, or the result itself when there is no `out`."""
    if out is None or result is out:
        return result
    out[...] = result
    return out
