"""Compiled products with plain matrices: checks, then the C of `c/matmul.c`."""

import ml_dtypes
import numpy as np

from minislm.kernels import border, compressed
from minislm.ops.float_panels import OUTPUTS

from native cimport int64_t, kernel, parallel, reading, runtime, stage, stage_of, the_runtime, writing


cdef extern from "matmul.h" nogil:
    ctypedef struct left "struct left":
        const float *a
        int64_t row, column
    ctypedef struct right "struct right":
        const float *b
        int64_t row, column
    ctypedef struct parts "struct product_parts":
        int64_t rows, columns, down, across
    ctypedef struct product_task "struct product_task":
        left a
        right b
        float *c
        int64_t m, n, k
        parts parts
    ctypedef enum stored "enum stored":
        FLOAT32
        FLOAT16
        BFLOAT16
    ctypedef struct panel_product_task "struct panel_product_task":
        const float *x
        const void *panels
        const float *bias
        float *y
        int64_t m, n, k
        stored stored
    ctypedef struct matmul_kernels "const struct matmul_kernels":
        kernel *product
        kernel *panel_product
        kernel *panel_product_by_rows
    matmul_kernels *matmul_kernels_for(int)
    parts product_parts(int64_t m, int64_t n)
    int64_t panel_product_units(const panel_product_task *)

cdef const runtime *shared = the_runtime()
cdef int64_t WORTH = 1 << 20  # multiplications that are worth a thread's while
cdef int64_t READING = 10  # of which reading a number of a large matrix costs as many
FLOAT16_DTYPE, BFLOAT16_DTYPE = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)
SIXTEEN_BITS = (FLOAT16_DTYPE, BFLOAT16_DTYPE)
UINT16 = np.dtype(np.uint16)


def linear(x_NI, w_OI, b_O=None, *, out=None, int threads=1):
    """Same as `ops.linear.linear`."""
    x, w = border.checked(x_NI, "x", 2), border.checked(w_OI, "w", 2)
    border.same_shape(w, "w", (len(w), x.shape[1]))
    y = border.output(out, (len(x), len(w)), x, w)
    cdef product_task task
    task.a.a, task.a.row, task.a.column = <const float *>reading(x), x.shape[1], 1
    task.b.b, task.b.row, task.b.column = <const float *>reading(w), 1, x.shape[1]
    task.c, task.m, task.n, task.k = <float *>writing(y), x.shape[0], w.shape[0], x.shape[1]
    run(&task, threads)
    if b_O is not None:
        b = border.checked(b_O, "b", 1)
        border.same_shape(b, "b", y.shape[1:])
        y += b
    return border.delivered(y, out), (x_NI, w_OI, b_O is not None)


def linear_dx(dy_NO, w_OI, *, out=None, int threads=1):
    """Same as `ops.linear.linear_dx`."""
    dy, w = border.checked(dy_NO, "dy", 2), border.checked(w_OI, "w", 2)
    border.same_shape(w, "w", (dy.shape[1], w.shape[1]))
    dx = border.output(out, (len(dy), w.shape[1]), dy, w)
    cdef product_task task
    task.a.a, task.a.row, task.a.column = <const float *>reading(dy), dy.shape[1], 1
    task.b.b, task.b.row, task.b.column = <const float *>reading(w), w.shape[1], 1
    task.c, task.m, task.n, task.k = <float *>writing(dx), dy.shape[0], w.shape[1], dy.shape[1]
    run(&task, threads)
    return border.delivered(dx, out)


def linear_dw(dy_NO, x_NI, *, out=None, int threads=1):
    """Same as `ops.linear.linear_dw`."""
    dy, x = border.checked(dy_NO, "dy", 2), border.checked(x_NI, "x", 2)
    border.same_shape(x, "x", (len(dy), x.shape[1]))
    dw = border.output(out, (dy.shape[1], x.shape[1]), dy, x)
    cdef product_task task
    task.a.a, task.a.row, task.a.column = <const float *>reading(dy), 1, dy.shape[1]
    task.b.b, task.b.row, task.b.column = <const float *>reading(x), x.shape[1], 1
    task.c, task.m, task.n, task.k = <float *>writing(dw), dy.shape[1], x.shape[1], dy.shape[0]
    run(&task, threads)
    return border.delivered(dw, out)


def float_panel_product(x_NI, panels, b_O=None, *, n_outputs, out=None, int threads=1):
    """Same as `ops.float_panels.float_panel_product`."""
    x = border.checked(x_NI, "x", 2)
    cdef panel_product_task task
    task.stored = FLOAT32
    if getattr(panels, "dtype", None) in SIXTEEN_BITS:
        task.stored = FLOAT16 if panels.dtype == FLOAT16_DTYPE else BFLOAT16
        w = border.checked(panels.view(UINT16), "panels", 3, UINT16)
    else:
        w = border.checked(panels, "panels", 3)
    border.same_shape(w, "panels", (-(-n_outputs // OUTPUTS), x.shape[1], OUTPUTS))
    b = compressed.bias(b_O, n_outputs)
    y = border.output(out, (len(x), n_outputs), x, w, *(() if b is None else (b,)))
    task.bias = NULL
    if b is not None:
        task.bias = <const float *>reading(b)
    task.x, task.panels, task.y = <const float *>reading(x), reading(w), <float *>writing(y)
    task.m, task.n, task.k = x.shape[0], y.shape[1], x.shape[1]
    cdef matmul_kernels *kernels = matmul_kernels_for(shared.chosen)
    cdef int64_t units = panel_product_units(&task)
    cdef int64_t grain = 1 + WORTH // (1 + (READING + task.m) * task.n * task.k // max(1, units))
    cdef stage whole = stage_of(kernels.panel_product, &task, units, grain)
    whole.by_rows, whole.rows, whole.anew = kernels.panel_product_by_rows, task.m, w.nbytes
    with nogil:
        shared.run_stage(&whole, sizeof(task), threads)
    return border.delivered(y, out)


cdef void run(product_task *task, int threads) noexcept:
    """Multiply."""
    task.parts = product_parts(task.m, task.n)
    cdef int64_t units = task.parts.down * task.parts.across
    cdef int64_t work_of_a_unit = 1 + task.m * task.n * task.k // max(1, units)
    cdef kernel *work = matmul_kernels_for(shared.chosen).product
    with nogil:
        parallel(work, task, sizeof(task[0]), units, 1 + WORTH // work_of_a_unit, threads)
