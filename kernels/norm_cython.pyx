"""Compiled normalization: checks, then the C of `c/norm.c`."""

import numpy as np

from minislm.kernels import border

from native cimport int64_t, kernel, reading, runtime, the_runtime, writing


cdef extern from "norm.h" nogil:
    ctypedef struct norm_task "struct norm_task":
        const float *x
        const float *w
        float *y
        float *r
        int64_t d
        float eps
    ctypedef struct norm_kernels "const struct norm_kernels":
        kernel *rms_norm
    norm_kernels *norm_kernels_for(int)

cdef const runtime *shared = the_runtime()


def rms_norm(x_ND, w_D, *, double eps, out=None, int threads=1):
    """Same as `ops.norm.rms_norm`."""
    x = border.checked(x_ND, "x", 2)
    w = border.checked(w_D, "w", 1)
    border.same_shape(w, "w", x.shape[1:])
    y = border.output(out, x.shape, x, w)
    r = np.empty(len(x), border.FLOAT32)
    cdef norm_task task
    task.x, task.w = <const float *>reading(x), <const float *>reading(w)
    task.y, task.r = <float *>writing(y), <float *>writing(r)
    task.d, task.eps = x.shape[1], eps
    cdef int64_t n = x.shape[0]
    cdef kernel *work = norm_kernels_for(shared.chosen).rms_norm
    with nogil:
        shared.parallel(work, &task, n, 1 + 65536 // (1 + task.d), threads)
    return border.delivered(y, out), (x, r, w)
