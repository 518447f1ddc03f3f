"""Checks at the border of a kernel, shared by the Numba and the Cython versions."""

from __future__ import annotations

from typing import Any

import numpy as np

from minislm.kernels import MOST_HEAD_WIDTH

FLOAT32 = np.dtype(np.float32)
FLOAT16 = np.dtype(np.float16)
INT8 = np.dtype(np.int8)
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


def row_width(array: np.ndarray) -> int:
    """Return how many numbers stand in a row: in a piece of 2048, if the array is no matrix."""
    return max(1, array.shape[-1]) if array.ndim > 1 else 2048


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


def updated(array: Any, name: str, shape: tuple[int, ...], dtype: np.dtype = FLOAT32) -> None:
    """Raise unless the array can be updated in place: of that dtype and shape, C-contiguous, aligned, writable."""
    if checked(array, name, len(shape), dtype) is not array:
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


def attention_shapes(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> None:
    """Check the sizes of queries, keys and values, (..., heads, width) each."""
    same_shape(k, "k", (*q.shape[: k.ndim - 3], *k.shape[-3:-1], q.shape[-1]))
    same_shape(v, "v", k.shape)
    heads(q.shape[-2], k.shape[-2])


def narrow(q: np.ndarray) -> None:
    """Raise ValueError for heads that are wider than compiled attention has room for."""
    if q.shape[-1] > MOST_HEAD_WIDTH:
        raise ValueError(f"a head must be at most {MOST_HEAD_WIDTH} wide, not {q.shape[-1]}")


def key_mask(mask: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """Check which keys there are; None: all."""
    if mask is None:
        return None
    mask = checked(mask, "key_mask", 2, np.dtype(bool))
    same_shape(mask, "key_mask", shape)
    return mask


def starts(positions: Any, n_rows: int) -> np.ndarray | None:
    """Check the positions of first queries; None: all 0."""
    if positions is None:
        return None
    positions = integers(positions, "starts", 1)
    same_shape(positions, "starts", (n_rows,))
    in_range(positions, "starts", 0, 1 << 62)
    return positions


def store(
    rows_SGK: Any, scales_SG: Any, name: str, scales_name: str, head: tuple[int, ...] | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Check rows of keys or values as a cache stores them, of some (G, K), and their scales."""
    dtype = getattr(rows_SGK, "dtype", FLOAT32)
    rows = checked(rows_SGK, name, 3, dtype if dtype in (FLOAT16, INT8) else FLOAT32)
    if head is not None:
        same_shape(rows, name, (len(rows), *head))
    if (scales_SG is not None) != (dtype == INT8):
        raise ValueError(f"{scales_name} must be given for int8 {name}, and only for them")
    if scales_SG is None:
        return rows, None
    scales = checked(scales_SG, scales_name, 2)
    same_shape(scales, scales_name, rows.shape[:2])
    return rows, scales


def packed_rows(k_SGK: Any, v_SGK: Any) -> tuple[np.ndarray, np.ndarray]:
    """Check the keys and values of `ops.packed.attention_packed`."""
    dtype = FLOAT16 if getattr(k_SGK, "dtype", None) == FLOAT16 else FLOAT32
    k, v = checked(k_SGK, "k", 3, dtype), checked(v_SGK, "v", 3, dtype)
    return k, v


def packed_sequences(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, counts_B: Any, firsts_B: Any, lengths_B: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Check the table of packed sequences, which must lie inside checked queries, keys and values."""
    attention_shapes(q, k, v)
    counts, firsts = integers(counts_B, "counts", 1), integers(firsts_B, "firsts", 1)
    lengths = integers(lengths_B, "lengths", 1)
    same_shape(firsts, "firsts", counts.shape)
    same_shape(lengths, "lengths", counts.shape)
    in_range(counts, "counts", 0, q.shape[0] + 1)
    in_range(firsts, "firsts", 0, k.shape[0] + 1)
    in_range(lengths, "lengths", 0, k.shape[0] + 1)
    in_range(firsts + lengths, "firsts + lengths", 0, k.shape[0] + 1)
    if counts.sum() != q.shape[0]:
        raise ValueError(f"counts must add up to the {q.shape[0]} rows of q, not to {counts.sum()}")
    return counts, firsts, lengths


def output(
    out: np.ndarray | None, shape: tuple[int, ...], *inputs: np.ndarray, dtype: np.dtype = FLOAT32
) -> np.ndarray:
    """Return the array to compute into: `out` if a kernel can write into it directly, else a fresh one.

    `out` must be of that dtype and the right shape. It is written directly when it is C-contiguous, aligned and
    overlaps none of `inputs`; `delivered` copies otherwise.
    """
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray) or out.dtype != dtype:
        raise TypeError(f"out must be a NumPy array of {dtype}, not {getattr(out, 'dtype', type(out).__name__)}")
    same_shape(out, "out", shape)
    flags = out.flags
    if not flags.writeable:
        raise ValueError("out is read-only")
    if not (flags.c_contiguous and flags.aligned) or any(np.may_share_memory(out, array) for array in inputs):
        return np.empty(shape, dtype)
    return out


def delivered(result: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """Return `out` holding the result, or the result itself when there is no `out`."""
    if out is None or result is out:
        return result
    out[...] = result
    return out
