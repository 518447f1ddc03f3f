"""Hypothesis strategies: matrices that try to break what stores them, masks, memory layouts, and Weights of every kind.

A matrix is drawn as a seed and a list of things done to it, so that a failing example shrinks to few of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minislm.testing.cases.nm import random_nm_mask
from minislm.testing.samples import EXPRESSIONS, LAYOUTS, STORAGES, laid_out, sample_expression, sample_weights
from minislm.weights.base import Weight

Edit = Callable[[np.ndarray, np.random.Generator], None]


def _zero_row(w_OI: np.ndarray, rng: np.random.Generator) -> None:
    w_OI[rng.integers(len(w_OI))] = 0.0


def _zero_group(w_OI: np.ndarray, rng: np.random.Generator) -> None:
    w_OI[:, : rng.integers(1, 130)] = 0.0


def _one_outlier(w_OI: np.ndarray, rng: np.random.Generator) -> None:
    w_OI[rng.integers(w_OI.shape[0]), rng.integers(w_OI.shape[1])] = rng.choice([-6e4, 6e4])


def _constant_row(w_OI: np.ndarray, rng: np.random.Generator) -> None:
    w_OI[rng.integers(len(w_OI))] = rng.normal()


def _one_sign(w_OI: np.ndarray, rng: np.random.Generator) -> None:
    np.abs(w_OI, out=w_OI)
    w_OI *= rng.choice([-1.0, 1.0])


def _tiny(w_OI: np.ndarray, rng: np.random.Generator) -> None:
    w_OI[rng.integers(len(w_OI))] *= 1e-9


def _smallest(w_OI: np.ndarray, rng: np.random.Generator) -> None:
    info = np.finfo(w_OI.dtype)
    row = w_OI[rng.integers(len(w_OI))]
    row[...] = rng.choice([info.smallest_subnormal, -info.smallest_subnormal, info.tiny, -0.0], len(row))


def _ties(w_OI: np.ndarray, rng: np.random.Generator) -> None:
    w_OI[...] = rng.integers(-15, 16, w_OI.shape) / 2.0


EDITS: dict[str, Edit] = {
    "zero row": _zero_row,
    "zero group": _zero_group,
    "one outlier": _one_outlier,
    "constant row": _constant_row,
    "one sign": _one_sign,
    "tiny row": _tiny,
    "smallest numbers": _smallest,
    "ties": _ties,
}


@st.composite
def matrices(
    draw: Any, *, max_outputs: int = 4, max_inputs: int = 140, dtype: Any = np.float32, hostile: bool = True
) -> np.ndarray:
    """Draw matrices of any small shape, in any memory layout.

    Parameters
    ----------
    max_outputs, max_inputs : int
        Largest shape.
    dtype : dtype-like
        Of the matrix: float32 or float64.
    hostile : bool
        Whether rows and groups of zeros, outliers, constant rows, one sign only, tiny and subnormal numbers, and exact
        ties occur among the normally distributed numbers. All are finite and small enough for float16 scales.

    Returns
    -------
    ndarray, (O, I)
        At least one row and one column.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.integers(1, max_outputs)), draw(st.integers(1, max_inputs))
    w_OI = rng.normal(size=shape).astype(dtype)
    for edit in draw(st.lists(st.sampled_from(sorted(EDITS)), max_size=3)) if hostile else []:
        EDITS[edit](w_OI, rng)
    return laid_out(w_OI, draw(layouts()))


def layouts() -> st.SearchStrategy[str]:
    """Draw names of memory layouts.

    Returns
    -------
    strategy of str
        For `minislm.testing.samples.laid_out`.
    """
    return st.sampled_from(LAYOUTS)


@st.composite
def masks(draw: Any, shape: tuple[int, int], pattern: str = "bitmap") -> np.ndarray:
    """Draw masks that a sparse pattern can store.

    Parameters
    ----------
    shape : tuple of int
        (outputs, inputs).
    pattern : str
        ``"n:m"``: at most n of every m are kept, often fewer. Anything else: any entries, from none to all.

    Returns
    -------
    ndarray, (O, I), bool
        True where an entry is kept.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if ":" in pattern:
        n, m = (int(number) for number in pattern.split(":"))
        return random_nm_mask(rng, *shape, n, m)
    mask_OI: np.ndarray = rng.random(shape) < draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    return mask_OI


@st.composite
def weights(draw: Any, *, max_outputs: int = 6, max_inputs: int = 70, dtype: Any = np.float32) -> Weight:
    """Draw Weights of every storage, and expressions of them.

    Parameters
    ----------
    max_outputs, max_inputs : int
        Largest shape.
    dtype : dtype-like
        Of the arrays that hold floats: float32 or float64.

    Returns
    -------
    Weight
        Read-only.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.integers(1, max_outputs)), draw(st.integers(1, max_inputs))
    name = draw(st.sampled_from([*STORAGES, *EXPRESSIONS]))
    if name in EXPRESSIONS:
        return sample_expression(name, rng, *shape, dtype)
    variants = sample_weights(name, rng, *shape, dtype)
    weight: Weight = draw(st.sampled_from(variants))
    return weight
