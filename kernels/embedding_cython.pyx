"""Compiled lookup of rows and its gradient: checks, then the C of `c/embedding.c`."""

from minislm.kernels import border

from native cimport int64_t, kernel, parallel, reading, runtime, the_runtime, writing


cdef extern from "embedding.h" nogil:
    enum:
        COLUMNS_PER_UNIT
    ctypedef struct embedding_task "struct embedding_task":
        const float *w
        const int64_t *ids
        float *x
        int64_t d
    ctypedef struct embedding_backward_task "struct embedding_backward_task":
        const float *dx
        const int64_t *ids
        float *dw
        int64_t n
        int64_t v
        int64_t d
    ctypedef struct embedding_kernels "const struct embedding_kernels":
        kernel *embedding
        kernel *embedding_backward
    embedding_kernels *embedding_kernels_for(int)

cdef const runtime *shared = the_runtime()


def embedding(ids_N, w_VD, *, out=None, int threads=1):
    """Same as `ops.embedding.embedding`."""
    ids, w = border.integers(ids_N, "ids", 1), border.checked(w_VD, "w", 2)
    border.in_range(ids, "ids", 0, len(w))
    x = border.output(out, (len(ids), w.shape[1]), w)
    cdef embedding_task task
    task.w, task.ids, task.x = <const float *>reading(w), <const int64_t *>reading(ids), <float *>writing(x)
    task.d = w.shape[1]
    cdef int64_t n = ids.shape[0]
    cdef kernel *work = embedding_kernels_for(shared.chosen).embedding
    with nogil:
        parallel(work, &task, sizeof(task), n, 1 + 262144 // (1 + task.d), threads)
    return border.delivered(x, out), (ids_N, len(w))


def embedding_backward(dx_ND, saved, *, out=None, int threads=1):
    """Same as `ops.embedding.embedding_backward`."""
    ids_N, n_rows = saved
    dx, ids = border.checked(dx_ND, "dx", 2), border.integers(ids_N, "ids", 1)
    border.same_shape(ids, "ids", dx.shape[:1])
    border.in_range(ids, "ids", 0, n_rows)
    dw = border.output(out, (n_rows, dx.shape[1]), dx)
    cdef embedding_backward_task task
    task.dx, task.ids, task.dw = <const float *>reading(dx), <const int64_t *>reading(ids), <float *>writing(dw)
    task.n, task.v, task.d = dx.shape[0], n_rows, dx.shape[1]
    cdef kernel *work = embedding_kernels_for(shared.chosen).embedding_backward
    with nogil:
        parallel(work, &task, sizeof(task), -(-task.d // COLUMNS_PER_UNIT), 1 + 2048 // (1 + task.n), threads)
    return border.delivered(dw, out)
