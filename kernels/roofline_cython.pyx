"""What the machine can do at most: loops of `c/roofline.c` that `minislm bench` times; no kernels of any op."""

import numpy as np

from minislm.kernels import border

from native cimport int64_t, kernel, parallel, reading, runtime, the_runtime, writing


cdef extern from "roofline.h" nogil:
    enum:
        READ_STEP
    ctypedef struct read_task "struct read_task":
        const unsigned char *bytes
        int64_t part, rounds
        int64_t *sums
    ctypedef struct peak_task "struct peak_task":
        int64_t iterations
        float start
        float *ends
    ctypedef struct roofline_kernels "const struct roofline_kernels":
        kernel *read
        kernel *fma
        kernel *int8
        int64_t fma_operations, int8_products
    roofline_kernels *roofline_kernels_for(int)
    int64_t amx_products()
    void amx_int8(const void *task, int64_t first, int64_t last)

cdef const runtime *shared = the_runtime()


def read(bytes_X, int64_t rounds, *, int threads=1):
    """Read an array of bytes `rounds` times, each thread a part of its own; return how many bytes that were."""
    data = border.checked(bytes_X, "bytes", 1, np.dtype(np.uint8))
    sums = np.empty(threads, np.int64)
    cdef read_task task
    task.bytes = <const unsigned char *>reading(data)
    task.part = data.size // threads // READ_STEP * READ_STEP
    task.rounds, task.sums = rounds, <int64_t *>writing(sums)
    cdef kernel *work = roofline_kernels_for(shared.chosen).read
    with nogil:
        parallel(work, &task, sizeof(task), threads, 1, threads)
    return task.part * threads * rounds


def fma(int64_t iterations, *, int threads=1):
    """Multiply and add float32 numbers in registers; return how many operations that were."""
    peak(roofline_kernels_for(shared.chosen).fma, iterations, threads)
    return roofline_kernels_for(shared.chosen).fma_operations * iterations * threads


def int8(int64_t iterations, *, int threads=1):
    """Multiply bytes in registers and add the products; return how many products that were."""
    peak(roofline_kernels_for(shared.chosen).int8, iterations, threads)
    return roofline_kernels_for(shared.chosen).int8_products * iterations * threads


def amx(int64_t iterations, *, int threads=1):
    """The same by tiles; 0 where the processor has none or the system does not give them."""
    cdef int64_t products = amx_products()
    if products:
        peak(amx_int8, iterations, threads)
    return products * iterations * threads


cdef peak(kernel *work, int64_t iterations, int threads):
    ends = np.empty(threads, np.float32)
    cdef peak_task task
    task.iterations, task.start, task.ends = iterations, 0.5, <float *>writing(ends)
    with nogil:
        parallel(work, &task, sizeof(task), threads, 1, threads)
