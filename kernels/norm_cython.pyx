"""Compiled normalization: checks, then the C of `c/norm.c`."""

import numpy as np

from minislm.kernels import border

from native cimport int64_t, kernel, parallel, parallel_rows, reading, runtime, the_runtime, writing


cdef extern from "norm.h" nogil:
    enum:
        ROWS_PER_PART
    ctypedef struct norm_task "struct norm_task":
        const float *x
        const float *w
        const float *b
        float *y
        float *mean
        float *r
        int64_t d
        float eps
    ctypedef struct norm_backward_task "struct norm_backward_task":
        const float *dy
        const float *x
        const float *w
        const float *mean
        const float *r
        float *dx
        float *dw
        float *db
        int64_t n
        int64_t d
    ctypedef struct norm_kernels "const struct norm_kernels":
        kernel *layer_norm
        kernel *rms_norm
        kernel *layer_norm_backward
        kernel *rms_norm_backward
    norm_kernels *norm_kernels_for(int)

cdef const runtime *shared = the_runtime()


def layer_norm(x_ND, w_D, b_D, *, double eps, out=None, int threads=1):
    """Same as `ops.norm.layer_norm`."""
    x, w, b = border.checked(x_ND, "x", 2), border.checked(w_D, "w", 1), border.checked(b_D, "b", 1)
    border.same_shape(w, "w", x.shape[1:])
    border.same_shape(b, "b", x.shape[1:])
    y = border.output(out, x.shape, x, w, b)
    mean, r = np.empty(len(x), border.FLOAT32), np.empty(len(x), border.FLOAT32)
    cdef norm_task task
    task.x, task.w, task.b = <const float *>reading(x), <const float *>reading(w), <const float *>reading(b)
    task.y, task.mean, task.r = <float *>writing(y), <float *>writing(mean), <float *>writing(r)
    task.d, task.eps = x.shape[1], eps
    run_rows(norm_kernels_for(shared.chosen).layer_norm, &task, len(x), threads)
    return border.delivered(y, out), (x, w, mean, r)


def rms_norm(x_ND, w_D, *, double eps, out=None, int threads=1):
    """Same as `ops.norm.rms_norm`."""
    x, w = border.checked(x_ND, "x", 2), border.checked(w_D, "w", 1)
    border.same_shape(w, "w", x.shape[1:])
    y = border.output(out, x.shape, x, w)
    r = np.empty(len(x), border.FLOAT32)
    cdef norm_task task
    task.x, task.w = <const float *>reading(x), <const float *>reading(w)
    task.y, task.r = <float *>writing(y), <float *>writing(r)
    task.d, task.eps = x.shape[1], eps
    run_rows(norm_kernels_for(shared.chosen).rms_norm, &task, len(x), threads)
    return border.delivered(y, out), (x, w, r)


cdef int run_rows(kernel *work, norm_task *task, int64_t n, int threads) except -1:
    with nogil:
        parallel_rows(work, task, sizeof(task[0]), n, 1 + 65536 // (1 + task.d), threads)
    return 0


def layer_norm_backward(dy_ND, saved, *, out=None, int threads=1):
    """Same as `ops.norm.layer_norm_backward`; `dw` and `db` are added up by parts of 64 rows, then over the parts."""
    x_ND, w_D, mean_N, r_N = saved
    return backward(dy_ND, x_ND, w_D, mean_N, r_N, out, threads)


def rms_norm_backward(dy_ND, saved, *, out=None, int threads=1):
    """Same as `ops.norm.rms_norm_backward`; `dw` is added up by parts of 64 rows, then over the parts."""
    x_ND, w_D, r_N = saved
    return backward(dy_ND, x_ND, w_D, None, r_N, out, threads)


cdef backward(dy_ND, x_ND, w_D, mean_N, r_N, out, int threads):
    """Run the backward of layer norm, or of RMS norm where there is no mean."""
    dy, x, w = border.checked(dy_ND, "dy", 2), border.checked(x_ND, "x", 2), border.checked(w_D, "w", 1)
    r = border.checked(r_N, "r", 1)
    border.same_shape(dy, "dy", x.shape)
    border.same_shape(w, "w", x.shape[1:])
    border.same_shape(r, "r", x.shape[:1])
    dx = border.output(out, x.shape, dy, x, w, r)
    cdef int64_t n = x.shape[0], n_parts = -(-n // ROWS_PER_PART)
    sums = np.empty((1 if mean_N is None else 2, n_parts, x.shape[1]), border.FLOAT32)
    cdef norm_backward_task task
    task.dy, task.x, task.w = <const float *>reading(dy), <const float *>reading(x), <const float *>reading(w)
    task.r, task.dx = <const float *>reading(r), <float *>writing(dx)
    task.n, task.d = n, x.shape[1]
    task.dw = <float *>writing(sums)
    task.db = task.dw + n_parts * task.d
    cdef kernel *work = norm_kernels_for(shared.chosen).rms_norm_backward
    if mean_N is not None:
        mean = border.checked(mean_N, "mean", 1)
        border.same_shape(mean, "mean", x.shape[:1])
        task.mean = <const float *>reading(mean)
        work = norm_kernels_for(shared.chosen).layer_norm_backward
    with nogil:
        parallel(work, &task, sizeof(task), n_parts, 1 + 32768 // (1 + ROWS_PER_PART * task.d), threads)
    return border.delivered(dx, out), *sums.sum(axis=1)
