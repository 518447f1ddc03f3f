"""Compiled dropout: checks, then the C of `c/dropout.c`. Arrays of any shape, seen as one row of numbers."""

import numpy as np

from minislm.kernels import border
from minislm.ops.dropout import stream_start, threshold

from libc.stdint cimport uint64_t
from native cimport int64_t, kernel, parallel, reading, runtime, the_runtime, writing


cdef extern from "dropout.h" nogil:
    enum:
        BLOCK
    ctypedef struct dropout_task "struct dropout_task":
        const float *x
        float *y
        unsigned char *kept
        int64_t n
        uint64_t start
        uint64_t threshold
        float factor
    ctypedef struct dropout_kernels "const struct dropout_kernels":
        kernel *drop
        kernel *drop_again
    dropout_kernels *dropout_kernels_for(int)

cdef const runtime *shared = the_runtime()


def dropout(x, *, rate, key, out=None, int threads=1):
    """Same as `ops.dropout.dropout`, in one pass over memory."""
    cdef dropout_task task
    task.threshold, task.start = threshold(rate), stream_start(key)
    x = border.checked(x, "x")
    y, kept = border.output(out, x.shape, x), np.empty(x.shape, np.bool_)
    task.x, task.y, task.kept = <const float *>reading(x), <float *>writing(y), <unsigned char *>writing(kept)
    task.n, task.factor = x.size, 1.0 / (1.0 - rate)
    with nogil:
        parallel(dropout_kernels_for(shared.chosen).drop, &task, sizeof(task), -(-task.n // BLOCK), 16, threads)
    return border.delivered(y, out), (kept, rate)


def dropout_backward(dy, saved, *, out=None, int threads=1):
    """Same as `ops.dropout.dropout_backward`."""
    kept, rate = saved
    dy, kept = border.checked(dy, "dy"), border.checked(kept, "kept", dtype=np.dtype(np.bool_))
    border.same_shape(dy, "dy", kept.shape)
    dx = border.output(out, dy.shape, dy)
    cdef dropout_task task
    task.x, task.y, task.kept = <const float *>reading(dy), <float *>writing(dx), <unsigned char *>reading(kept)
    task.n, task.factor = dy.size, 1.0 / (1.0 - rate)
    with nogil:
        parallel(dropout_kernels_for(shared.chosen).drop_again, &task, sizeof(task), -(-task.n // BLOCK), 16, threads)
    return border.delivered(dx, out)
