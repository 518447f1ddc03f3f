"""Compiled products with packed matrices: checks, then the C of `c/quantized.c`."""

import numpy as np

from minislm.kernels import border, compressed

from codes cimport BLOCK, describe, packed
from native cimport int64_t, kernel, reading, runtime, the_runtime, writing


cdef extern from "quantized.h" nogil:
    enum:
        FEW
    ctypedef struct decode_task "struct decode_task":
        packed w
        const int64_t *rows
        int64_t start
        float *out
    ctypedef struct product_task "struct product_task":
        packed w
        const float *x
        float *y
        int64_t n, x_stride, outputs
    ctypedef struct quantized_kernels "const struct quantized_kernels":
        kernel *decode
        kernel *product
    quantized_kernels *quantized_kernels_for(int)

cdef const runtime *shared = the_runtime()
cdef int64_t WORTH = 131072  # codes that are worth a thread's while
assert compressed.FEW <= FEW


def quantized_product(x_NI, codes_OP, scales_OJ, zeros_OJ=None, *, format, out=None, int threads=1):
    """Same as `ops.quantized.quantized_product`."""
    x = border.checked(x_NI, "x", 2)
    codes, scales, zeros = compressed.packed(codes_OP, scales_OJ, zeros_OJ, format, None, x.shape[1])
    y = border.output(out, (len(x), len(codes)), x, scales)
    if len(x) > compressed.FEW:
        compressed.by_tiles(x, y, Decoder(codes, scales, zeros, format, x.shape[1], threads))
        return border.delivered(y, out)
    x = compressed.padded(x, BLOCK)
    cdef product_task task
    describe(&task.w, codes, scales, zeros, format, x_NI.shape[1])
    task.x, task.y = <const float *>reading(x), <float *>writing(y)
    task.n, task.x_stride, task.outputs = x.shape[0], x.shape[1], codes.shape[0]
    cdef kernel *work = quantized_kernels_for(shared.chosen).product
    with nogil:
        shared.parallel(work, &task, sizeof(task), task.outputs, 1 + WORTH // (1 + task.x_stride * task.n), threads)
    return border.delivered(y, out)


def quantized_rows(ids_N, codes_OP, scales_OJ, zeros_OJ=None, *, format, int64_t n_inputs, out=None, int threads=1):
    """Same as `ops.quantized.quantized_rows`."""
    codes, scales, zeros = compressed.packed(codes_OP, scales_OJ, zeros_OJ, format, None, n_inputs)
    ids = border.integers(ids_N, "ids", 1)
    border.in_range(ids, "ids", 0, len(codes))
    w = border.output(out, (len(ids), n_inputs), scales)
    cdef decode_task task
    describe(&task.w, codes, scales, zeros, format, n_inputs)
    task.rows, task.start, task.out = <const int64_t *>reading(ids), 0, <float *>writing(w)
    cdef int64_t n = ids.shape[0]
    cdef kernel *work = quantized_kernels_for(shared.chosen).decode
    with nogil:
        shared.parallel(work, &task, sizeof(task), n, 1 + WORTH // (1 + n_inputs), threads)
    return border.delivered(w, out)


cdef class Decoder:
    """Fills tiles with consecutive rows of a checked matrix."""

    cdef decode_task task
    cdef object alive
    cdef int threads

    def __init__(self, codes, scales, zeros, format, n_inputs, threads):
        self.alive = codes, scales, zeros
        self.threads = threads
        describe(&self.task.w, codes, scales, zeros, format, n_inputs)
        self.task.rows = NULL

    def __call__(self, first, tile):
        self.task.start, self.task.out = first, <float *>writing(tile)
        cdef int64_t n = tile.shape[0]
        cdef kernel *work = quantized_kernels_for(shared.chosen).decode
        with nogil:
            shared.parallel(work, &self.task, sizeof(self.task), n, 1 + WORTH // (1 + self.task.w.inputs), self.threads)
