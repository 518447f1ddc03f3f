"""Compiled lookups in packed matrices: checks, then the C of `c/quantized.c`."""

from minislm.kernels import border, compressed

from codes cimport describe, packed
from native cimport int64_t, kernel, parallel, reading, runtime, the_runtime, writing


cdef extern from "quantized.h" nogil:
    ctypedef struct decode_task "struct decode_task":
        packed w
        const int64_t *rows
        float *out
    ctypedef struct quantized_kernels "const struct quantized_kernels":
        kernel *decode
    quantized_kernels *quantized_kernels_for(int)

cdef const runtime *shared = the_runtime()
cdef int64_t WORTH = 131072  # codes that are worth a thread's while


def quantized_rows(ids_N, codes_OP, scales_OJ, zeros_OJ=None, *, format, int64_t n_inputs, out=None, int threads=1):
    """Same as `ops.quantized.quantized_rows`."""
    codes, scales, zeros = compressed.packed(codes_OP, scales_OJ, zeros_OJ, format, None, n_inputs)
    ids = border.integers(ids_N, "ids", 1)
    border.in_range(ids, "ids", 0, len(codes))
    w = border.output(out, (len(ids), n_inputs), scales)
    cdef decode_task task
    describe(&task.w, codes, scales, zeros, format, n_inputs)
    task.rows, task.out = <const int64_t *>reading(ids), <float *>writing(w)
    cdef int64_t n = ids.shape[0]
    cdef kernel *work = quantized_kernels_for(shared.chosen).decode
    with nogil:
        parallel(work, &task, sizeof(task), n, 1 + WORTH // (1 + n_inputs), threads)
    return border.delivered(w, out)
