"""Sampled Weights: every row of `minislm.weights.WEIGHTS` in several variants, and expressions made of them.

An author of a new storage adds a line to `STORAGES`; the laws of `minislm.testing.weights` then hold it to its word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

from minislm.ops.blocks import BLOCK_FORMATS
from minislm.ops.formats import format_named
from minislm.testing.cases.bitmap import random_mask
from minislm.testing.cases.block_sparse import random_blocks_mask
from minislm.testing.cases.blocks import random_blocks
from minislm.testing.cases.nm import random_nm_mask
from minislm.weights.base import Weight
from minislm.weights.blocks import Blocks
from minislm.weights.dense import Dense
from minislm.weights.diagonal import Diagonal
from minislm.weights.fake_quantized import FakeQuantized
from minislm.weights.masked import Masked
from minislm.weights.product import Product
from minislm.weights.quantized import Quantized
from minislm.weights.sparse import Sparse
from minislm.weights.sum import Sum

Matrix = Callable[[int, int], np.ndarray]
"""Draws a matrix of the given numbers of rows and columns."""

FORMATS = ("int8", "int4-32", "uint4-64", "int3", "int2-128", "uint8", "int5", "int7-32", "uint6", "nf4-64", "ternary")
PATTERNS = (
    ("bitmap", None),
    ("2:4", None),
    ("csr", None),
    ("bitmap", "int8-32"),
    ("2:4", "int4-32"),
    ("csr", "uint5-64"),
    ("2:4", "nf4-32"),
    ("bitmap", "nf4-64"),
)
LAYOUTS = ("c", "fortran", "strided", "reversed", "read_only")


def sample_weights(storage: str, rng: np.random.Generator, n_outputs: int, n_inputs: int, dtype: Any) -> list[Weight]:
    """Draw Weights of one storage, in all its variants.

    Parameters
    ----------
    storage : str
        A row of `minislm.weights.WEIGHTS`.
    rng : numpy.random.Generator
        Source of numbers.
    n_outputs, n_inputs : int
        Shape; a diagonal is square and takes the second.
    dtype : dtype-like
        Of the arrays that hold floats: float32 or float64. Variants in 16 bits come with float32 only.

    Returns
    -------
    list of Weight
        All of them read-only.
    """
    return [frozen(weight) for weight in STORAGES[storage](_drawing(rng, dtype), rng, n_outputs, n_inputs)]


def sample_expression(name: str, rng: np.random.Generator, n_outputs: int, n_inputs: int, dtype: Any) -> Weight:
    """Draw a Weight made of several.

    Parameters
    ----------
    name : str
        A key of `EXPRESSIONS`.
    rng : numpy.random.Generator
        Source of numbers.
    n_outputs, n_inputs : int
        Shape.
    dtype : dtype-like
        Of the arrays that hold floats: float32 or float64.

    Returns
    -------
    Weight
        Read-only.
    """
    return frozen(EXPRESSIONS[name](_drawing(rng, dtype), rng, n_outputs, n_inputs))


def laid_out(array: np.ndarray, layout: str) -> np.ndarray:
    """Copy an array to another memory layout.

    Parameters
    ----------
    array : ndarray
        Any array.
    layout : str
        One of `LAYOUTS`: C order, Fortran order, every second element of a larger array in each direction, stored
        backwards, or C order that cannot be written to.

    Returns
    -------
    ndarray
        The same numbers.

    Examples
    --------
    >>> laid_out(np.arange(3), "reversed").strides
    (-8,)
    """
    if layout == "strided":
        larger = np.full(tuple(2 * size for size in array.shape), 1, array.dtype)
        view = larger[tuple(slice(None, None, 2) for _ in array.shape)]
        view[...] = array
        return view
    if layout == "reversed":
        backwards = tuple(slice(None, None, -1) for _ in array.shape)
        return np.ascontiguousarray(array[backwards])[backwards]
    copy = np.array(array, order="F" if layout == "fortran" else "C")
    copy.flags.writeable = layout != "read_only"
    return copy


def frozen(weight: Weight) -> Weight:
    """Make the arrays of a Weight impossible to write to, so that a verb that tries is found out.

    Parameters
    ----------
    weight : Weight
        Any.

    Returns
    -------
    Weight
        The same one.
    """
    for array in weight.arrays().values():
        array.flags.writeable = False
    return weight


def parts(weight: Weight) -> Iterator[Weight]:
    """Iterate over a Weight and everything that it is made of.

    Parameters
    ----------
    weight : Weight
        Any.

    Yields
    ------
    Weight
        The whole first.
    """
    yield weight
    match weight:
        case Sum(a=a, b=b):
            yield from parts(a)
            yield from parts(b)
        case Product(left=left, right=right):
            yield from parts(left)
            yield from parts(right)
        case Sparse(values=values):
            yield from parts(values)


def _drawing(rng: np.random.Generator, dtype: Any) -> Matrix:
    return lambda n_outputs, n_inputs: rng.normal(size=(n_outputs, n_inputs)).astype(dtype)


def _dense(matrix: Matrix, rng: np.random.Generator, o: int, i: int) -> list[Weight]:
    w_OI = matrix(o, i)
    halves = [w_OI.astype(np.float16), w_OI.astype(ml_dtypes.bfloat16)] if w_OI.itemsize == 4 else []
    return [Dense(w_OI), Dense(matrix(i, o).T), *(Dense(half) for half in halves)]


def _quantized(matrix: Matrix, rng: np.random.Generator, o: int, i: int) -> list[Weight]:
    w_OI = matrix(o, i)
    w_OI[-1] = 0.0
    rounded = [
        Quantized.nearest(w_OI, name, way)
        for name in ("int4-32", "uint3", "nf4-32", "ternary-32")
        for way in ("int8-row", "int8-32")
    ]
    scale = np.array([0.02], np.float32)  # which clips beyond 2.54
    static = [Quantized.nearest(w_OI, name, "static", scale) for name in ("int8", "int4-32", "uint3")]
    return [*(Quantized.nearest(w_OI, name) for name in FORMATS), *rounded, *static]


def _blocks(matrix: Matrix, rng: np.random.Generator, o: int, i: int) -> list[Weight]:
    plain = [Blocks(format, i, random_blocks(rng, format, o, i)) for format in BLOCK_FORMATS.values()]
    return [*plain, *(weight.with_activations(way) for weight in plain for way in ("int8", "int8-row"))]


def _sparse(matrix: Matrix, rng: np.random.Generator, o: int, i: int) -> list[Weight]:
    w_OI, mask_OI, mask24_OI = matrix(o, i), random_mask(rng, o, i), random_nm_mask(rng, o, i, 2, 4)
    plain = [
        Sparse.from_dense(w_OI, mask24_OI if pattern == "2:4" else mask_OI, pattern, values)
        for pattern, values in PATTERNS
    ]
    odd = Sparse.from_dense(w_OI, random_nm_mask(rng, o, i, 1, 5), "1:5", "int3")
    empty = Sparse.from_dense(w_OI, np.zeros_like(mask_OI), "bitmap", "int4-32")
    wide = Sparse.from_dense(w_OI, mask24_OI, "2:4", "uint4-64")
    tall = matrix(-(-o // 16) * 16, i)
    blocks = [
        Sparse.from_dense(tall, random_blocks_mask(rng, len(tall), i), "16x32", values)
        for values in (None, "int8", "uint4-64")
    ]
    plain += blocks
    rounded = [weight.with_activations(way) for weight in (*plain, wide) for way in ("int8-row", "int8-32")]
    return [*plain, odd, empty, wide, *(weight for weight in rounded if weight not in plain)]


def _diagonal(matrix: Matrix, rng: np.random.Generator, o: int, i: int) -> list[Weight]:
    return [Diagonal(matrix(1, i)[0])]


def _sum(matrix: Matrix, rng: np.random.Generator, o: int, i: int) -> list[Weight]:
    return [Dense(matrix(o, i)) + Dense(matrix(o, i))]


def _product(matrix: Matrix, rng: np.random.Generator, o: int, i: int) -> list[Weight]:
    return [Dense(matrix(o, 3)) @ Dense(matrix(3, i)), Dense(matrix(o, i)) @ Diagonal(matrix(1, i)[0])]


def _masked(matrix: Matrix, rng: np.random.Generator, o: int, i: int) -> list[Weight]:
    return [Masked.from_dense(matrix(o, i), random_mask(rng, o, i))]


def _fake_quantized(matrix: Matrix, rng: np.random.Generator, o: int, i: int) -> list[Weight]:
    w_OI = matrix(o, i)
    weights: list[Weight] = [FakeQuantized.nearest(w_OI, name) for name in ("int4-32", "int8")]
    for name in ("int3", "int2-64", "nf4-32", "ternary"):  # scales of both signs that clip some, one of them zero
        format = format_named(name)
        scales_OJ = matrix(o, format.n_groups(i)) / format.step_range[1]
        scales_OJ[-1, -1] = 0.0
        weights.append(FakeQuantized(w_OI, format, scales_OJ.astype(np.float32)))
    return weights


STORAGES: dict[str, Callable[[Matrix, np.random.Generator, int, int], list[Weight]]] = {
    "dense": _dense,
    "quantized": _quantized,
    "blocks": _blocks,
    "sparse": _sparse,
    "diagonal": _diagonal,
    "sum": _sum,
    "product": _product,
    "masked": _masked,
    "fake_quantized": _fake_quantized,
}

EXPRESSIONS: dict[str, Callable[[Matrix, np.random.Generator, int, int], Weight]] = {
    "low rank": lambda w, rng, o, i: Dense(w(o, 2)) @ Dense(w(2, i)),
    "LoRA on 4 bit": lambda w, rng, o, i: Quantized.nearest(w(o, i), "int4-32") + Dense(w(o, 2)) @ Dense(w(2, i)),
    "LoRA on blocks": lambda w, rng, o, i: _blocks(w, rng, o, i)[-1] + Dense(w(o, 2)) @ Dense(w(2, i)),
    "scaled channels": lambda w, rng, o, i: Quantized.nearest(w(o, i), "uint4-64") @ Diagonal(w(1, i)[0]),
    "scaled outputs": lambda w, rng, o, i: Diagonal(w(1, o)[0]) @ Quantized.nearest(w(o, i), "int8"),
    "2:4 with int4": lambda w, rng, o, i: Sparse.from_dense(w(o, i), random_nm_mask(rng, o, i, 2, 4), "2:4", "int4"),
    "error correction": lambda w, rng, o, i: (
        Quantized.nearest(w(o, i), "int3") + Quantized.nearest(w(o, 4), "int8") @ Quantized.nearest(w(4, i), "int8")
    ),
    "sparse and low rank": lambda w, rng, o, i: (
        Sparse.from_dense(w(o, i), random_mask(rng, o, i), "bitmap") + Dense(w(o, 1)) @ Dense(w(1, i))
    ),
    "masked factors": lambda w, rng, o, i: (
        Masked.from_dense(w(o, 3), random_mask(rng, o, 3)) @ Masked.from_dense(w(3, i), random_mask(rng, 3, i))
    ),
    "nested": lambda w, rng, o, i: (
        (Quantized.nearest(w(o, i), "int8") @ Diagonal(w(1, i)[0]) + Dense(w(o, i)))
        + Diagonal(w(1, o)[0]) @ (Dense(w(o, 2)) @ (Dense(w(2, 3)) @ Dense(w(3, i))))
    ),
}
