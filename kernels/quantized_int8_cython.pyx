"""Compiled products of bytes: checks and rounding of activations, then the C of `c/quantized_int8.c`."""

import numpy as np

from minislm.kernels import border, compressed
from minislm.ops.quantized import activation_group

from codes cimport BLOCK, PADDING, RUN, describe, packed
from libc.stdint cimport int8_t, int32_t
from native cimport int64_t, kernel, reading, runtime, the_runtime, writing


cdef extern from "quantized_int8.h" nogil:
    enum:
        UNIT
    ctypedef struct rounding_task "struct rounding_task":
        const float *x
        int8_t *codes
        float *scales
        int32_t *sums
        float given
        int64_t inputs, stride, group, groups, copies, row_scales, span, spans
    ctypedef struct int8_task "struct int8_task":
        packed w
        const int8_t *x
        const float *x_scales
        const int32_t *x_sums
        float *y
        int64_t n, stride, x_spans, outputs
    ctypedef struct quantized_int8_kernels "const struct quantized_int8_kernels":
        kernel *round
        kernel *whole_rows
        kernel *grouped
    quantized_int8_kernels *quantized_int8_kernels_for(int)

cdef const runtime *shared = the_runtime()
cdef int64_t WORTH = 131072  # numbers that are worth a thread's while


def quantize_activations(x_NI, *, int64_t group, scale=None, out=None, int threads=1):
    """Same as `ops.quantized.quantize_activations`."""
    x = border.checked(x_NI, "x", 2)
    if group < 0:
        raise ValueError(f"group must be at least 0, not {group}")
    cdef rounding_task task
    cdef int64_t n = x.shape[0], inputs = x.shape[1]
    task.inputs = task.stride = inputs
    task.group = group or max(inputs, 1)
    task.groups = max(1, -(-inputs // task.group))
    task.copies, task.row_scales, task.span, task.spans = 1, task.groups, 1, 0
    task.given = -1 if scale is None else scale
    codes, scales = np.empty((n, inputs), np.int8), np.empty((n, task.groups), np.float32)
    task.x, task.codes = <const float *>reading(x), <int8_t *>writing(codes)
    task.scales, task.sums = <float *>writing(scales), NULL
    cdef kernel *work = quantized_int8_kernels_for(shared.chosen).round
    with nogil:
        shared.parallel(work, &task, sizeof(task), n, 1 + WORTH // (1 + inputs), threads)
    if out is not None:
        border.same_shape(out, "out", codes.shape)
        out[...] = codes
        codes = out
    return codes, scales


def quantized_product_int8(
    x_NI,
    codes_OP,
    scales_OJ,
    zeros_OJ=None,
    *,
    format,
    str activations,
    activation_scale=None,
    out=None,
    int threads=1,
):
    """Same as `ops.quantized.quantized_product_int8`."""
    cdef int64_t x_group = activation_group(activations, activation_scale)
    x = border.checked(x_NI, "x", 2)
    codes, scales, zeros = compressed.packed(codes_OP, scales_OJ, zeros_OJ, format, None, x.shape[1])
    y = border.output(out, (len(x), len(codes)), x, scales)
    cdef rounding_task rounding
    cdef int8_task task
    cdef bint by_row = not x_group, whole = by_row and not format.group
    cdef int64_t n = x.shape[0], inputs = x.shape[1], outputs = codes.shape[0]
    cdef int64_t stride = max(1, -(-inputs // PADDING)) * PADDING
    rounding.given = -1 if activation_scale is None else activation_scale
    rounding.inputs, rounding.stride = inputs, stride
    rounding.span = RUN if whole else BLOCK
    rounding.spans = -(-stride // rounding.span)
    rounding.group = max(inputs, 1) if by_row else BLOCK
    rounding.groups = 1 if by_row else max(1, -(-inputs // BLOCK))
    rounding.copies = rounding.spans if by_row and not whole else 1
    rounding.row_scales = 1 if whole else rounding.spans
    x_codes = np.empty((n, stride), np.int8)
    x_scales = np.zeros((n, rounding.row_scales), np.float32)
    x_sums = np.empty((n, rounding.spans), np.int32)
    rounding.x, rounding.codes = <const float *>reading(x), <int8_t *>writing(x_codes)
    rounding.scales, rounding.sums = <float *>writing(x_scales), <int32_t *>writing(x_sums)
    describe(&task.w, codes, scales, zeros, format, inputs)
    task.x, task.x_scales, task.x_sums = rounding.codes, rounding.scales, rounding.sums
    task.y, task.n, task.stride, task.x_spans, task.outputs = <float *>writing(y), n, stride, rounding.spans, outputs
    kernels = quantized_int8_kernels_for(shared.chosen)
    cdef kernel *work = kernels.whole_rows if whole else kernels.grouped
    with nogil:
        shared.parallel(kernels.round, &rounding, sizeof(rounding), n, 1 + WORTH // (1 + inputs), threads)
        shared.parallel(work, &task, sizeof(task), (outputs + UNIT - 1) // UNIT, 1 + WORTH // UNIT // (1 + inputs * n), threads)
    return border.delivered(y, out)
