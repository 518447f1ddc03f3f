"""Compiled softmax: checks, then the C of `c/softmax.c`."""

from minislm.kernels import border

from native cimport int64_t, kernel, parallel, reading, runtime, the_runtime, writing


cdef extern from "softmax.h" nogil:
    ctypedef struct softmax_task "struct softmax_task":
        const float *x
        const float *p
        float *y
        int64_t v
    ctypedef struct softmax_kernels "const struct softmax_kernels":
        kernel *softmax
        kernel *softmax_backward
    softmax_kernels *softmax_kernels_for(int)

cdef const runtime *shared = the_runtime()


def softmax(x_NV, *, out=None, int threads=1):
    """Same as `ops.softmax.softmax`."""
    x = border.checked(x_NV, "x", 2)
    y = border.output(out, x.shape, *(() if out is x else (x,)))
    cdef softmax_task task
    task.x, task.y, task.v = <const float *>reading(x), <float *>writing(y), x.shape[1]
    run(softmax_kernels_for(shared.chosen).softmax, &task, len(x), threads)
    y = border.delivered(y, out)
    return y, (y,)


def softmax_backward(dp_NV, saved, *, out=None, int threads=1):
    """Same as `ops.softmax.softmax_backward`."""
    (p_NV,) = saved
    dp, p = border.checked(dp_NV, "dp", 2), border.checked(p_NV, "p", 2)
    border.same_shape(dp, "dp", p.shape)
    dx = border.output(out, p.shape, dp, p)
    cdef softmax_task task
    task.x, task.p, task.y = <const float *>reading(dp), <const float *>reading(p), <float *>writing(dx)
    task.v = p.shape[1]
    run(softmax_kernels_for(shared.chosen).softmax_backward, &task, len(p), threads)
    return border.delivered(dx, out)


cdef int run(kernel *work, softmax_task *task, int64_t n, int threads) except -1:
    with nogil:
        parallel(work, task, sizeof(task[0]), n, 1 + 32768 // (1 + task.v), threads)
    return 0
