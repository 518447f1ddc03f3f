"""Compiled writing of keys and values into a cache: checks, then the C of `c/store.c`."""

from minislm.kernels import border

from native cimport int64_t, kernel, parallel_rows, reading, runtime, the_runtime
from store cimport enter_store, store


cdef extern from "store.h" nogil:
    ctypedef struct store_task "struct store_task":
        const float *x
        const int64_t *rows
        store to
        int64_t g
        int64_t width
    ctypedef struct store_kernels "const struct store_kernels":
        kernel *store_rows
    store_kernels *store_kernels_for(int)

cdef const runtime *shared = the_runtime()

cdef int64_t WORTH_A_THREAD = 1 << 16  # numbers


def store_rows(x_NGK, rows_N, stored_SGK, scales_SG=None, *, out=None, int threads=1):
    """Same as `ops.packed.store_rows`; there is no result that `out` could receive."""
    x = border.checked(x_NGK, "x", 3)
    border.store(stored_SGK, scales_SG, "stored", "scales", x.shape[1:])
    for array, name in ((stored_SGK, "stored"), (scales_SG, "scales")):
        if array is not None:
            border.updated(array, name, array.shape, array.dtype)
    cdef store_task task
    task.rows = NULL
    if rows_N is None:
        border.same_shape(stored_SGK[: x.shape[0]], "the first rows", x.shape)
    else:
        rows = border.integers(rows_N, "rows", 1)
        border.same_shape(rows, "rows", x.shape[:1])
        border.in_range(rows, "rows", 0, stored_SGK.shape[0])
        task.rows = <const int64_t *>reading(rows)
    enter_store(&task.to, stored_SGK, scales_SG, True)
    task.x = <const float *>reading(x)
    task.g, task.width = x.shape[1], x.shape[2]
    cdef int64_t n = x.shape[0]
    cdef kernel *work = store_kernels_for(shared.chosen).store_rows
    with nogil:
        parallel_rows(work, &task, sizeof(task), n, 1 + WORTH_A_THREAD // (1 + task.g * task.width), threads)
