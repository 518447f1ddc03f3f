"""Blocks of two levels (q4_k, q6_k) in panels: products with float rows, and with rows rounded once for all of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minislm.errors import UnsupportedError
from minislm.ops.blocks import BlockFormat, TwoLevels
from minislm.ops.formats import format_named
from minislm.ops.panels import BLOCK, OUTPUTS, RoundedRows, pack_groups, pack_panels, unpack_groups, unpack_panels
from minislm.ops.tiles import product_by_tiles, row_tiles

CODES = {"q4_k": format_named("int4"), "q6_k": format_named("int6")}
"""How the codes of a block format stand in lines: as those of a format of as many bits."""


class BlockPanels(NamedTuple):
    """The arrays of a matrix of two levels in panels.

    Parameters
    ----------
    lines : ndarray, (panels, blocks, bits, 64), uint8
        Codes, as `ops.panels.pack_panels` lays them out.
    scales : ndarray, (panels, J, 16), uint8
        Of each group, as of `ops.blocks.TwoLevels`.
    supers : ndarray, (panels, S, 16), float16
        Of each 256 inputs; those of `least` of the same inputs follow those of `scales`.
    least : ndarray, (panels, J, 16), uint8, or None
        Of each group of q4_k.
    """

    lines: np.ndarray
    scales: np.ndarray
    supers: np.ndarray
    least: np.ndarray | None


def pack_block_panels(blocks_OP: np.ndarray, *, n_inputs: int, format: BlockFormat) -> BlockPanels:
    """Lay a matrix in blocks out in panels.

    Parameters
    ----------
    blocks_OP : ndarray, (O, P), uint8
        Rows of blocks.
    n_inputs : int
        Weights of a row.
    format : BlockFormat
        One whose scales have two levels.

    Returns
    -------
    BlockPanels
        The same numbers.

    Raises
    ------
    UnsupportedError
        Code ``unknown_block_format``: scales have one level.
    """
    if format.fields is None:
        raise UnsupportedError("unknown_block_format", f"{format} has scales of one level; its twin lies in panels")
    n_outputs, storage = len(blocks_OP), CODES[format.name]
    codes_OP1 = np.empty((n_outputs, storage.row_bytes(n_inputs)), np.uint8)
    found: list[TwoLevels] = []
    for rows in row_tiles(n_outputs, 8 * n_inputs):
        records = format.blocks(blocks_OP[rows])
        fields = format.fields(records.reshape(-1))
        codes_OP1[rows] = storage.pack(fields.codes.reshape(len(records), -1)[:, :n_inputs])
        found.append(fields)
    scales, supers = (np.concatenate([fields[name] for fields in found]) for name in (1, 3))
    least = None if found[0].least is None else np.concatenate([fields[2] for fields in found])
    return BlockPanels(
        pack_panels(codes_OP1, n_inputs=n_inputs, format=storage),
        pack_groups(scales.reshape(n_outputs, -1)),
        pack_groups(supers.reshape(n_outputs, -1)),
        None if least is None else pack_groups(least.reshape(n_outputs, -1)),
    )


def block_panel_product(
    rounded_NP: np.ndarray,
    lines: np.ndarray,
    scales: np.ndarray,
    supers: np.ndarray,
    least: np.ndarray | None = None,
    b_O: np.ndarray | None = None,
    *,
    format: BlockFormat,
    n_inputs: int,
    n_outputs: int,
) -> np.ndarray:
    """Multiply rounded rows by the transpose of a matrix of two levels in panels.

    Parameters
    ----------
    rounded_NP : ndarray, (N, P), int8
        What `ops.panels.round_activations` returned.
    lines, scales, supers, least : ndarray
        What `pack_block_panels` returned.
    b_O : ndarray, (O,), float32, optional
        Bias, added in the end.
    format : BlockFormat
        What they mean.
    n_inputs, n_outputs : int
        Of the matrix.

    Returns
    -------
    ndarray, (N, O), float32
        The product of the rounded rows with the weights of `ops.blocks.BlockFormat`.

    Notes
    -----
    Both are decoded here and multiplied in float32: 2NOI operations. Kernels add whole numbers: let a be the scale of a
    row in a group, and x its codes, then a group of q4_k adds ``a * (d * s) * sum(x * code) - a * sum(x) * (m * t)``,
    one of q6_k ``a * (d * s) * sum(x * (code - 32))``. 2NOI integer operations, and 5NO float ones for every 32 inputs,
    6NO of q6_k.

    References
    ----------
    I. Kawrakow, "k-quants", 2023, https://github.com/ggml-org/llama.cpp/pull/1684.

    Examples
    --------
    >>> import numpy as np
    >>> from minislm.ops.blocks import block_format_named
    >>> from minislm.ops.panels import round_activations
    >>> q6_k = block_format_named("q6_k")
    >>> block = np.zeros(1, q6_k.record)
    >>> block["scale"], block["scales"], block["low"], block["high"] = 0.5, 2, 1, 0xAA  # every code is 33: one step
    >>> arrays = pack_block_panels(block.view(np.uint8)[None], n_inputs=2, format=q6_k)
    >>> rounded_NP = round_activations(np.array([[1.0, 127.0]], np.float32), group=32)
    >>> block_panel_product(rounded_NP, *arrays, format=q6_k, n_inputs=2, n_outputs=1)
    array([[128.]], dtype=float32)
    """
    x_codes, x_scales, _ = RoundedRows.of(rounded_NP, n_inputs)
    x_NI = (x_codes * np.repeat(x_scales, BLOCK, axis=1))[:, :n_inputs]
    return decoded_block_panel_product(x_NI, lines, scales, supers, least, b_O, format=format, n_outputs=n_outputs)


def decoded_block_panel_product(
    x_NI: np.ndarray,
    lines: np.ndarray,
    scales: np.ndarray,
    supers: np.ndarray,
    least: np.ndarray | None = None,
    b_O: np.ndarray | None = None,
    *,
    format: BlockFormat,
    n_outputs: int,
) -> np.ndarray:
    """Multiply float rows by the transpose of a matrix of two levels in panels.

    Parameters
    ----------
    x_NI : ndarray, (N, I), float32 or float64
        Input rows.
    lines, scales, supers, least : ndarray
        What `pack_block_panels` returned.
    b_O : ndarray, (O,), optional
        Bias, added in the end.
    format : BlockFormat
        What they mean.
    n_outputs : int
        Of the matrix.

    Returns
    -------
    ndarray, (N, O)
        The same as `ops.blocks.block_product` of the matrix, in the dtype of `x_NI`.

    Notes
    -----
    2NOI operations plus the decoding of OI codes to float32; sums and the bias in the dtype of `x_NI`.

    References
    ----------
    I. Kawrakow, "k-quants", 2023, https://github.com/ggml-org/llama.cpp/pull/1684.

    Examples
    --------
    >>> import numpy as np
    >>> from minislm.ops.blocks import block_format_named
    >>> q6_k = block_format_named("q6_k")
    >>> block = np.zeros(1, q6_k.record)
    >>> block["scale"], block["scales"], block["low"], block["high"] = 0.5, 2, 1, 0xAA  # every code is 33: one step
    >>> arrays = pack_block_panels(block.view(np.uint8)[None], n_inputs=2, format=q6_k)
    >>> decoded_block_panel_product(np.array([[1.0, 0.25]], np.float32), *arrays, format=q6_k, n_outputs=1)
    array([[1.25]], dtype=float32)
    """
    n_inputs = x_NI.shape[1]
    y_NO = product_by_tiles(x_NI, n_outputs, lambda rows: _values(lines, scales, supers, least, rows, n_inputs, format))
    return y_NO if b_O is None else y_NO + b_O


def _values(
    lines: np.ndarray,
    scales: np.ndarray,
    supers: np.ndarray,
    least: np.ndarray | None,
    rows: slice,
    n_inputs: int,
    format: BlockFormat,
) -> np.ndarray:
    """Decode some outputs, (outputs, I), float32, as `ops.blocks` decodes them."""
    start, size = rows.start // OUTPUTS, -(-n_inputs // format.inputs)
    some, skipped = slice(start, -(-rows.stop // OUTPUTS)), rows.start % OUTPUTS
    n_rows = rows.stop - start * OUTPUTS
    steps = np.zeros((n_rows, size * format.inputs), np.float32)
    steps[:, :n_inputs] = unpack_panels(lines[some], n_rows, n_inputs, format=CODES[format.name])
    groups = steps.reshape(n_rows, scales.shape[1], -1)
    inner = unpack_groups(scales[some], n_rows).astype(np.float32).reshape(n_rows, size, -1)
    outer = unpack_groups(supers[some], n_rows).astype(np.float32).reshape(n_rows, size, -1)
    if least is None:
        groups -= 32
        inner -= 128
    groups *= (inner * outer[:, :, :1]).reshape(n_rows, -1, 1)
    if least is not None:
        groups -= (unpack_groups(least[some], n_rows).reshape(inner.shape) * outer[:, :, 1:]).reshape(n_rows, -1, 1)
    return steps[skipped:, :n_inputs]
