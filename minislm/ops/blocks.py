"""Matrices in the blocks of GGUF files: the scales of a few inputs side by side with their codes.

A row of a matrix is a row of blocks, each a record of a fixed number of bytes. They are multiplied where they lie, in
a mapped file as well as in memory; a tile of rows at a time is decoded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minislm.errors import unknown
from minislm.ops.tiles import Decode, product_by_tiles, product_t_by_tiles


class TwoLevels(NamedTuple):
    """The fields of blocks whose scales have two levels, each number by itself.

    Parameters
    ----------
    codes : ndarray, (blocks, 256), uint8
        One code in each byte.
    scales : ndarray, (blocks, groups), uint8
        Of 32 inputs of q4_k, or of 16 of q6_k, where 128 stands for 0.
    least : ndarray, (blocks, groups), uint8, or None
        What q4_k takes away from each input of a group.
    supers : ndarray, (blocks, 1 or 2), float16
        Steps of `scales`, and of `least`.
    """

    codes: np.ndarray
    scales: np.ndarray
    least: np.ndarray | None
    supers: np.ndarray


@dataclass(frozen=True)
class BlockFormat:
    """How some inputs of a row become a record of bytes.

    Parameters
    ----------
    name : str
        Lower case, as in the names of files.
    inputs : int
        Weights of a block. The last block of a row may hold more than the row has; the rest of it is ignored.
    record : dtype
        The fields of a block.
    values : callable
        From blocks to the weights that they stand for, (blocks, inputs), float32.
    fields : callable, optional
        From blocks to their `TwoLevels`, where scales have two levels.

    Notes
    -----
    Let d be a block's float16 scale. All arithmetic is float32, in the order written.

    ==== ====== ===== =====================================================================================
    name inputs bytes value of input i
    ==== ====== ===== =====================================================================================
    q8_0 32     34    ``code * d``, codes from -128 to 127
    q4_0 32     18    ``(code - 8) * d``; byte i holds codes i (its low half) and i + 16
    q4_k 256    144   ``code * (d * s) - m * t``: s and t are six bits for every 32 inputs, m a second scale
    q6_k 256    210   ``(code - 32) * (d * s)``: s is a signed byte for every 16 inputs, codes have six bits
    ==== ====== ===== =====================================================================================

    References
    ----------
    I. Kawrakow, "k-quants", 2023, https://github.com/ggml-org/llama.cpp/pull/1684; the records are those of
    ``ggml-common.h``.

    Examples
    --------
    >>> import numpy as np
    >>> q4_0 = block_format_named("q4_0")
    >>> q4_0.inputs, q4_0.n_bytes, q4_0.row_bytes(33)
    (32, 18, 36)
    """

    name: str
    inputs: int
    record: np.dtype
    values: Callable[[np.ndarray], np.ndarray]
    fields: Callable[[np.ndarray], TwoLevels] | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def n_bytes(self) -> int:
        """Bytes of a block."""
        return self.record.itemsize

    def row_bytes(self, n_inputs: int) -> int:
        """Count the bytes of a row.

        Parameters
        ----------
        n_inputs : int
            Weights of the row.

        Returns
        -------
        int
            P.
        """
        return -(-n_inputs // self.inputs) * self.n_bytes

    def blocks(self, blocks_OP: np.ndarray) -> np.ndarray:
        """See rows of bytes as records.

        Parameters
        ----------
        blocks_OP : ndarray, (O, P), uint8
            Rows of blocks.

        Returns
        -------
        ndarray, (O, blocks)
            Records; a view where the bytes lie side by side.
        """
        return np.ascontiguousarray(blocks_OP).view(self.record)

    def decode(self, blocks_OP: np.ndarray, n_inputs: int) -> np.ndarray:
        """Return the weights that rows of blocks stand for.

        Parameters
        ----------
        blocks_OP : ndarray, (O, P), uint8
            Rows of blocks.
        n_inputs : int
            Weights of a row, which the bytes alone do not tell.

        Returns
        -------
        ndarray, (O, I), float32
            A new array.
        """
        records = self.blocks(blocks_OP)
        with np.errstate(invalid="ignore", over="ignore"):  # a scale may be any float16
            values = self.values(records.reshape(-1))
        return values.reshape(len(records), records.shape[1] * self.inputs)[:, :n_inputs]


def _q8_0(blocks: np.ndarray) -> np.ndarray:
    values: np.ndarray = blocks["codes"].astype(np.float32)
    values *= blocks["scale"].astype(np.float32)[:, None]
    return values


def _q4_0(blocks: np.ndarray) -> np.ndarray:
    steps: np.ndarray = _halves(blocks["codes"]).reshape(len(blocks), 32).astype(np.float32)
    steps -= 8
    steps *= blocks["scale"].astype(np.float32)[:, None]
    return steps


def _q4_k_codes(blocks: np.ndarray) -> np.ndarray:
    """Unpack eight groups of 32: every 32 bytes hold a group in their low halves and the next in their high halves."""
    return _halves(blocks["codes"].reshape(-1, 4, 32)).reshape(-1, 256)


def _q4_k_fields(blocks: np.ndarray) -> TwoLevels:
    supers = np.stack((blocks["scale"], blocks["least"]), axis=1)
    return TwoLevels(_q4_k_codes(blocks), *_six_bits(blocks["scales"]), supers)


def _q4_k(blocks: np.ndarray) -> np.ndarray:
    scales, least = _six_bits(blocks["scales"])
    values: np.ndarray = _q4_k_codes(blocks).reshape(-1, 8, 32).astype(np.float32)
    values *= (scales * blocks["scale"].astype(np.float32)[:, None])[:, :, None]
    values -= (least * blocks["least"].astype(np.float32)[:, None])[:, :, None]
    return values.reshape(-1, 256)


def _q6_k_fields(blocks: np.ndarray) -> TwoLevels:
    """See two halves of 128: 64 bytes hold the low four bits of each, 32 bytes the high two."""
    low = _halves(blocks["low"].reshape(-1, 2, 64))
    high = blocks["high"].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    codes = low.reshape(-1, 256) | high.reshape(-1, 256) << 4
    return TwoLevels(codes, blocks["scales"].view(np.uint8) ^ 0x80, None, blocks["scale"][:, None])


def _q6_k(blocks: np.ndarray) -> np.ndarray:
    codes, scales, _, supers = _q6_k_fields(blocks)
    steps: np.ndarray = codes.reshape(-1, 16, 16).astype(np.float32)
    steps -= 32
    steps *= ((scales.astype(np.float32) - 128) * supers.astype(np.float32))[:, :, None]
    return steps.reshape(-1, 256)


def _halves(codes: np.ndarray) -> np.ndarray:
    """Cut bytes in halves: first all the low ones of the last axis, then all the high ones."""
    return np.stack((codes & 15, codes >> 4), axis=-2)


def _six_bits(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unpack the eight scales and the eight minima of blocks from 12 bytes: (blocks, 8) each, uint8.

    The first four of either stand in the low six bits of a byte. The other four are cut: four bits share a byte with
    those of their partner, the upper two fill the bytes of the first four up.
    """
    first, second, shared = packed.reshape(-1, 3, 4).transpose(1, 0, 2)
    scales = np.concatenate((first & 63, shared & 15 | first >> 6 << 4), axis=1)
    least = np.concatenate((second & 63, shared >> 4 | second >> 6 << 4), axis=1)
    return scales, least


BLOCK_FORMATS: dict[str, BlockFormat] = {
    format.name: format
    for format in (
        BlockFormat("q8_0", 32, np.dtype([("scale", "<f2"), ("codes", "i1", 32)]), _q8_0),
        BlockFormat("q4_0", 32, np.dtype([("scale", "<f2"), ("codes", "u1", 16)]), _q4_0),
        BlockFormat(
            "q4_k",
            256,
            np.dtype([("scale", "<f2"), ("least", "<f2"), ("scales", "u1", 12), ("codes", "u1", 128)]),
            _q4_k,
            _q4_k_fields,
        ),
        BlockFormat(
            "q6_k",
            256,
            np.dtype([("low", "u1", 128), ("high", "u1", 64), ("scales", "i1", 16), ("scale", "<f2")]),
            _q6_k,
            _q6_k_fields,
        ),
    )
}


def block_format_named(name: str) -> BlockFormat:
    """Look a format up.

    Parameters
    ----------
    name : str
        Such as ``"q4_0"``.

    Returns
    -------
    BlockFormat
        The row of `BLOCK_FORMATS`.

    Raises
    ------
    UnsupportedError
        Code ``unknown_block_format``.
    """
    if name not in BLOCK_FORMATS:
        raise unknown("block_format", name, BLOCK_FORMATS)
    return BLOCK_FORMATS[name]


def block_product(x_NI: np.ndarray, blocks_OP: np.ndarray, *, format: BlockFormat) -> np.ndarray:
    """Multiply float rows by the transpose of a matrix in blocks.

    Parameters
    ----------
    x_NI : ndarray, (N, I), float32 or float64
        Input rows.
    blocks_OP : ndarray, (O, P), uint8
        Rows of blocks.
    format : BlockFormat
        What the bytes mean.

    Returns
    -------
    ndarray, (N, O)
        In the dtype of `x_NI`.

    Notes
    -----
    ``y[n, o] = sum_i x[n, i] * w[o, i]`` with the values w of `BlockFormat`. 2NOI operations plus the decoding of OI
    codes; reads 8.5 (q8_0), 4.5 (q4_0, q4_k) or 6.6 (q6_k) bits for each weight. Values are decoded to float32 in row
    tiles of at most 1 MiB and accumulate in the dtype of `x_NI`.

    References
    ----------
    As `BlockFormat`.

    Examples
    --------
    >>> import numpy as np
    >>> q8_0 = block_format_named("q8_0")
    >>> block = np.zeros(1, q8_0.record)
    >>> block["scale"], block["codes"][0, :2] = 0.5, (2, -3)
    >>> block_product(np.array([[1.0, 10.0]], np.float32), block.view(np.uint8)[None], format=q8_0)
    array([[-14.]], dtype=float32)
    """
    return product_by_tiles(x_NI, len(blocks_OP), _decoder(blocks_OP, format, x_NI.shape[1]))


def block_product_t(dy_NO: np.ndarray, blocks_OP: np.ndarray, *, format: BlockFormat, n_inputs: int) -> np.ndarray:
    """Multiply float rows by a matrix in blocks: the gradient of `block_product`'s input.

    Parameters
    ----------
    dy_NO : ndarray, (N, O), float32 or float64
        Gradient of the output.
    blocks_OP : ndarray, (O, P), uint8
        Rows of blocks.
    format : BlockFormat
        What the bytes mean.
    n_inputs : int
        Columns of the matrix, I.

    Returns
    -------
    ndarray, (N, I)
        In the dtype of `dy_NO`.

    Notes
    -----
    ``dx[n, i] = sum_o dy[n, o] * w[o, i]`` at the cost of `block_product`.

    References
    ----------
    As `BlockFormat`.

    Examples
    --------
    >>> import numpy as np
    >>> q8_0 = block_format_named("q8_0")
    >>> block = np.zeros(1, q8_0.record)
    >>> block["scale"], block["codes"][0, :2] = 0.5, (2, -3)
    >>> block_product_t(np.array([[4.0]], np.float32), block.view(np.uint8)[None], format=q8_0, n_inputs=2)
    array([[ 4., -6.]], dtype=float32)
    """
    return product_t_by_tiles(dy_NO, n_inputs, _decoder(blocks_OP, format, n_inputs))


def block_rows(ids_N: np.ndarray, blocks_OP: np.ndarray, *, format: BlockFormat, n_inputs: int) -> np.ndarray:
    """Look rows of a matrix in blocks up.

    Parameters
    ----------
    ids_N : ndarray, (N,), int64
        Wanted rows.
    blocks_OP : ndarray, (O, P), uint8
        Rows of blocks.
    format : BlockFormat
        What the bytes mean.
    n_inputs : int
        Columns of the matrix, I.

    Returns
    -------
    ndarray, (N, I), float32
        Row ``ids[n]`` at place n.

    Notes
    -----
    NI values of `BlockFormat`; nothing accumulates, and no other row is read.

    References
    ----------
    As `BlockFormat`.

    Examples
    --------
    >>> import numpy as np
    >>> q8_0 = block_format_named("q8_0")
    >>> block = np.zeros(1, q8_0.record)
    >>> block["scale"], block["codes"][0, :2] = 0.5, (2, -3)
    >>> block_rows(np.array([0, 0]), block.view(np.uint8)[None], format=q8_0, n_inputs=2)
    array([[ 1. , -1.5],
           [ 1. , -1.5]], dtype=float32)
    """
    return format.decode(blocks_OP[ids_N], n_inputs)


def _decoder(blocks_OP: np.ndarray, format: BlockFormat, n_inputs: int) -> Decode:
    """Return the function that decodes a range of rows."""
    return lambda rows: format.decode(blocks_OP[rows], n_inputs)
