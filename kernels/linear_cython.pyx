"""Compiled affine maps without a product: checks, then the C of `c/linear.c`."""

from minislm.kernels import border

from native cimport int64_t, kernel, parallel_rows, reading, runtime, the_runtime, writing


cdef extern from "linear.h" nogil:
    ctypedef struct rows_task "struct rows_task":
        const float *x
        const float *b
        float *y
        int64_t o
    ctypedef struct add_task "struct add_task":
        const float *x
        const float *y
        float *z
        int64_t n, width
    ctypedef struct linear_kernels "const struct linear_kernels":
        kernel *add
        kernel *add_bias
        kernel *scale
    linear_kernels *linear_kernels_for(int)

cdef const runtime *shared = the_runtime()


def add(x, y, *, out=None, int threads=1):
    """Same as `ops.linear.add`; `out` may be one of the terms."""
    a, b = border.checked(x, "x"), border.checked(y, "y")
    border.same_shape(b, "y", a.shape)
    z = border.output(out, a.shape, *(term for term in (a, b) if term is not out))
    cdef add_task task
    task.x, task.y, task.z, task.n = <const float *>reading(a), <const float *>reading(b), <float *>writing(z), a.size
    task.width = border.row_width(a)
    cdef kernel *work = linear_kernels_for(shared.chosen).add
    with nogil:
        parallel_rows(work, &task, sizeof(task), -(-task.n // task.width), 1 + 65536 // task.width, threads)
    return border.delivered(z, out)


def add_bias(x_NO, b_O, *, out=None, int threads=1):
    """Same as `ops.linear.add_bias`; `out` may be `x` itself."""
    return by_rows(linear_kernels_for(shared.chosen).add_bias, x_NO, b_O, "b", out, threads)


def scale(x_NI, s_I, *, out=None, int threads=1):
    """Same as `ops.linear.scale`; `out` may be `x` itself."""
    return by_rows(linear_kernels_for(shared.chosen).scale, x_NI, s_I, "s", out, threads)


cdef by_rows(kernel *work, x, b, name, out, int threads):
    x, b = border.checked(x, "x", 2), border.checked(b, name, 1)
    border.same_shape(b, name, x.shape[1:])
    y = border.output(out, x.shape, b, *(() if out is x else (x,)))
    cdef rows_task task
    task.x, task.b, task.y = <const float *>reading(x), <const float *>reading(b), <float *>writing(y)
    task.o = x.shape[1]
    cdef int64_t n = x.shape[0]
    with nogil:
        parallel_rows(work, &task, sizeof(task), n, 1 + 262144 // (1 + task.o), threads)
    return border.delivered(y, out)
