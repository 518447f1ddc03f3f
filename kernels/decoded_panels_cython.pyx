"""Compiled products of float rows with quantized matrices in panels: checks, then the C of `c/decoded_panels.c`."""

import numpy as np

from minislm.kernels import border, compressed
from minislm.ops.block_panels import CODES

from libc.stdint cimport int64_t
from native cimport kernel, parallel, reading, runtime, the_runtime, writing
from panels cimport describe, describe_blocks, describe_masks, panels


cdef extern from "decoded_panels.h" nogil:
    enum:
        UNIT_ROWS
    ctypedef struct decoded_task "struct decoded_task":
        panels w
        const float *floats
        const float *x
        const float *bias
        float *y
        int64_t n
    ctypedef struct decoded_panels_kernels "const struct decoded_panels_kernels":
        kernel *product
    decoded_panels_kernels *decoded_panels_kernels_for(int)
    int64_t decoded_units(const decoded_task *)

cdef const runtime *shared = the_runtime()
cdef int64_t WORTH = 1 << 19  # multiplications that are worth a thread's while; a code costs as many as three rows


def decoded_panel_product(
    x_NI, lines, scales, zeros=None, b_O=None, *, format, int64_t n_outputs, out=None, int threads=1
):
    """Same as `ops.panels.decoded_panel_product`."""
    cdef decoded_task task
    x = border.checked(x_NI, "x", 2)
    lines, scales, zeros = compressed.in_panels(lines, scales, zeros, format, x.shape[1], n_outputs)
    describe(&task.w, lines, scales, zeros, format, x.shape[1], n_outputs)
    task.floats = NULL
    return multiplied(&task, x, (lines, scales, zeros), b_O, out, threads)


def decoded_block_panel_product(
    x_NI, lines, scales, supers, least=None, b_O=None, *, format, int64_t n_outputs, out=None, int threads=1
):
    """Same as `ops.block_panels.decoded_block_panel_product`."""
    cdef decoded_task task
    x = border.checked(x_NI, "x", 2)
    arrays = compressed.in_block_panels(lines, scales, supers, least, format, x.shape[1], n_outputs)
    lines, scales, supers, least = arrays
    describe_blocks(&task.w, lines, scales, supers, least, CODES[format.name], x.shape[1], n_outputs)
    task.floats = NULL
    return multiplied(&task, x, arrays, b_O, out, threads)


def decoded_masked_panel_product(
    x_NI,
    masks,
    values,
    starts,
    scales=None,
    zeros=None,
    b_O=None,
    *,
    format=None,
    int64_t n_outputs,
    out=None,
    int threads=1,
):
    """Same as `ops.masked_panels.decoded_masked_panel_product`."""
    cdef decoded_task task
    x = border.checked(x_NI, "x", 2)
    cdef int64_t n_inputs = x.shape[1]
    dtype = border.FLOAT32 if format is None else compressed.UINT8
    masks, values, starts = compressed.in_masked_panels(masks, values, starts, dtype, n_inputs, n_outputs)
    task.floats = NULL
    if format is None:
        task.floats = <const float *>reading(values)
        task.w.supers, task.w.outputs, task.w.inputs = NULL, n_outputs, n_inputs
    else:
        scales, zeros = compressed.panel_groups(scales, zeros, format, n_inputs, n_outputs)
        describe(&task.w, values, scales, zeros, format, n_inputs, n_outputs)
    bad = np.zeros(1, np.int64)
    describe_masks(&task.w, masks, starts, bad, starts[-1])
    y = multiplied(&task, x, (masks, values, starts, *(() if format is None else (scales,))), b_O, out, threads)
    compressed.check_panels(bad)
    return y


cdef multiplied(decoded_task *task, x, arrays, b_O, out, int threads):
    """Multiply rows by the matrix of the task, which lies in these checked arrays."""
    b = compressed.bias(b_O, task.w.outputs)
    y = border.output(out, (len(x), task.w.outputs), x, *arrays[:2], *(() if b is None else (b,)))
    task.x, task.y, task.n = <const float *>reading(x), <float *>writing(y), x.shape[0]
    task.bias = NULL
    if b is not None:
        task.bias = <const float *>reading(b)
    cdef int64_t units = decoded_units(task)
    cdef int64_t grain = 1 + WORTH // (1 + task.w.inputs * 32 * (3 + min(task.n, UNIT_ROWS)))
    cdef kernel *work = decoded_panels_kernels_for(shared.chosen).product
    with nogil:
        parallel(work, task, sizeof(task[0]), units, grain, threads)
    return border.delivered(y, out)
