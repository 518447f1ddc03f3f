"""Compiled product with a matrix of low rank: checks, then the C of `c/low_rank.c`."""

import numpy as np

from minislm.kernels import border

from native cimport int64_t, kernel, parallel, reading, runtime, the_runtime, writing


cdef extern from "low_rank.h" nogil:
    ctypedef struct factor_task "struct factor_task":
        const float *x
        const float *w
        float *y
        int64_t n, inputs, outputs
    ctypedef struct low_rank_kernels "const struct low_rank_kernels":
        kernel *factor
    low_rank_kernels *low_rank_kernels_for(int)

cdef const runtime *shared = the_runtime()
cdef int64_t WORTH = 65536  # weights that are worth a thread's while


def low_rank_product(x_NI, right_RI, left_OR, *, out=None, int threads=1):
    """Same as `ops.low_rank.low_rank_product`: both factors in one call, for few rows of x."""
    x, right = border.checked(x_NI, "x", 2), border.checked(right_RI, "right", 2)
    left = border.checked(left_OR, "left", 2)
    border.same_shape(right, "right", (len(right), x.shape[1]))
    border.same_shape(left, "left", (len(left), len(right)))
    y = border.output(out, (len(x), len(left)), x, right, left)
    middle = np.empty((len(x), len(right)), border.FLOAT32)
    cdef factor_task first, second
    first.x, first.w, first.y = <const float *>reading(x), <const float *>reading(right), <float *>writing(middle)
    first.n, first.inputs, first.outputs = x.shape[0], x.shape[1], right.shape[0]
    second.x, second.w, second.y = first.y, <const float *>reading(left), <float *>writing(y)
    second.n, second.inputs, second.outputs = x.shape[0], right.shape[0], left.shape[0]
    cdef kernel *work = low_rank_kernels_for(shared.chosen).factor
    with nogil:
        parallel(work, &first, sizeof(first), first.outputs, 1 + WORTH // (1 + first.inputs * first.n), threads)
        parallel(work, &second, sizeof(second), second.outputs, 1 + WORTH // (1 + second.inputs * second.n), threads)
    return border.delivered(y, out)
