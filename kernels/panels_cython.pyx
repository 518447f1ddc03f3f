"""Compiled products in panels: checks, then the C of `c/panels.c`."""

import math

import numpy as np

from minislm.kernels import border, compressed
from minislm.ops.block_panels import CODES
from minislm.ops.panels import RoundedRows, n_blocks

from libc.stdint cimport int8_t, int64_t
from native cimport kernel, parallel_rows, reading, runtime, stage, stage_of, the_runtime, writing
from panels cimport describe, describe_blocks, describe_columns, describe_masks, panels


cdef extern from "panels.h" nogil:
    enum:
        PIECE_BLOCKS
    ctypedef struct rounded "struct rounded":
        const int8_t *rows
        int64_t n, stride, blocks
    ctypedef struct panel_task "struct panel_task":
        panels w
        rounded x
        const float *bias
        float *y
        int64_t segment_blocks
    ctypedef struct round_task "struct round_task":
        const float *x
        int8_t *rows
        int64_t inputs, stride, blocks, group
        float given
    ctypedef struct panels_kernels "const struct panels_kernels":
        kernel *round
        kernel *product
        kernel *product_by_rows
    panels_kernels *panels_kernels_for(int)

cdef const runtime *shared = the_runtime()
cdef int64_t WORTH_ROUNDING = 131072  # numbers that are worth a thread's while
cdef int64_t WORTH = 1 << 20  # multiplications that are, of which a row of codes costs as many as three rows of x
INT8 = np.dtype(np.int8)


def round_activations(x_NI, *, int64_t group, scale=None, out=None, int threads=1):
    """Same as `ops.panels.round_activations`."""
    x = border.checked(x_NI, "x", 2)
    if group not in (0, 32):
        raise ValueError(f"group must be 0 or 32, not {group}")
    cdef round_task task
    cdef int64_t n = x.shape[0]
    rows = border.output(out, (n, RoundedRows.n_bytes(x.shape[1])), x, dtype=INT8)
    if rows.ctypes.data % sizeof(float):  # bytes lie anywhere, and the scales among them do not
        rows = np.empty_like(rows)
    task.x, task.rows = <const float *>reading(x), <int8_t *>writing(rows)
    task.inputs, task.stride, task.blocks, task.group = x.shape[1], rows.shape[1], n_blocks(x.shape[1]), group
    task.given = -1 if scale is None else scale
    cdef kernel *work = panels_kernels_for(shared.chosen).round
    with nogil:
        parallel_rows(work, &task, sizeof(task), n, 1 + WORTH_ROUNDING // (1 + task.inputs), threads)
    return border.delivered(rows, out)


def panel_product(
    rounded_NP,
    lines,
    scales,
    zeros=None,
    b_O=None,
    *,
    format,
    int64_t group,
    int64_t n_inputs,
    int64_t n_outputs,
    out=None,
    int threads=1,
):
    """Same as `ops.panels.panel_product`."""
    cdef panel_task task
    lines, scales, zeros = compressed.in_panels(lines, scales, zeros, format, n_inputs, n_outputs)
    describe(&task.w, lines, scales, zeros, format, n_inputs, n_outputs)
    task.segment_blocks = min(filter(None, (group, format.group)), default=0) // 32
    return multiplied(&task, rounded_NP, (lines, scales, zeros), b_O, out, threads)


def masked_panel_product(
    rounded_NP,
    masks,
    codes,
    starts,
    scales,
    zeros=None,
    b_O=None,
    *,
    format,
    int64_t group,
    int64_t n_inputs,
    int64_t n_outputs,
    out=None,
    int threads=1,
):
    """Same as `ops.masked_panels.masked_panel_product`."""
    cdef panel_task task
    masks, codes, starts = compressed.in_masked_panels(masks, codes, starts, compressed.UINT8, n_inputs, n_outputs)
    scales, zeros = compressed.panel_groups(scales, zeros, format, n_inputs, n_outputs)
    bad = np.zeros(1, np.int64)
    describe(&task.w, codes, scales, zeros, format, n_inputs, n_outputs)
    describe_masks(&task.w, masks, starts, bad, starts[-1])
    task.segment_blocks = min(filter(None, (group, format.group)), default=0) // 32
    if task.segment_blocks:  # groups of n:m may have any number of blocks
        task.segment_blocks = math.gcd(task.segment_blocks, PIECE_BLOCKS)
    y = multiplied(&task, rounded_NP, (masks, codes, starts, scales, zeros), b_O, out, threads)
    compressed.check_panels(bad)
    return y


def block_sparse_panel_product(
    rounded_NP,
    lines,
    columns,
    starts,
    scales,
    zeros=None,
    b_O=None,
    *,
    format,
    int64_t n_inputs,
    int64_t n_outputs,
    out=None,
    int threads=1,
):
    """Same as `ops.block_sparse.block_sparse_panel_product`."""
    cdef panel_task task
    arrays = compressed.in_block_sparse_panels(lines, columns, starts, scales, zeros, format, n_outputs)
    lines, columns, starts, scales, zeros = arrays
    bad = np.zeros(1, np.int64)
    describe(&task.w, lines, scales, zeros, format, n_inputs, n_outputs)
    describe_columns(&task.w, columns, starts, bad)
    task.segment_blocks = 1
    y = multiplied(&task, rounded_NP, arrays, b_O, out, threads)
    compressed.check_panels(bad)
    return y


def block_panel_product(
    rounded_NP,
    lines,
    scales,
    supers,
    least=None,
    b_O=None,
    *,
    format,
    int64_t n_inputs,
    int64_t n_outputs,
    out=None,
    int threads=1,
):
    """Same as `ops.block_panels.block_panel_product`."""
    cdef panel_task task
    lines, scales, supers, least = compressed.in_block_panels(lines, scales, supers, least, format, n_inputs, n_outputs)
    describe_blocks(&task.w, lines, scales, supers, least, CODES[format.name], n_inputs, n_outputs)
    task.segment_blocks = 1
    return multiplied(&task, rounded_NP, (lines, scales, supers, least), b_O, out, threads)


cdef multiplied(panel_task *task, rounded_NP, arrays, b_O, out, int threads):
    """Multiply rounded rows by the matrix of the task, which lies in these checked arrays."""
    rows = border.checked(rounded_NP, "rounded", 2, INT8)
    border.same_shape(rows, "rounded", (len(rows), RoundedRows.n_bytes(task.w.inputs)))
    b = compressed.bias(b_O, task.w.outputs)
    y = border.output(out, (len(rows), task.w.outputs), rows, *arrays[:2], *(() if b is None else (b,)))
    task.x.rows, task.x.n = <const int8_t *>reading(rows), rows.shape[0]
    if <size_t>task.x.rows % sizeof(float):  # bytes lie anywhere, and the scales in them do not
        rows = rows.copy()
        task.x.rows = <const int8_t *>reading(rows)
    task.x.stride, task.x.blocks = rows.shape[1], task.w.blocks
    task.bias = NULL
    if b is not None:
        task.bias = <const float *>reading(b)
    task.y = <float *>writing(y)
    cdef panels_kernels *kernels = panels_kernels_for(shared.chosen)
    cdef int64_t grain = 1 + WORTH // (1 + 16 * task.w.inputs * (3 + task.x.n))
    cdef stage whole = stage_of(kernels.product, task, (task.w.outputs + 15) // 16, grain)
    whole.by_rows, whole.rows, whole.anew = kernels.product_by_rows, task.x.n, sum(array.nbytes for array in arrays[:2])
    if task.w.columns is not NULL:
        whole.by_rows = NULL  # blocks are passed over for all rows at once
    with nogil:
        shared.run_stage(&whole, sizeof(task[0]), threads)
    return border.delivered(y, out)
