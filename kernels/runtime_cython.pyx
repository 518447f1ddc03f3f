# distutils: sources = kernels/c/threads.c kernels/c/processor.c
"""The instruction set that the compiled kernels use, and the one thread pool that they share."""

import os

from cpython.pycapsule cimport PyCapsule_New
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from native cimport (
    can_run,
    instruction_set,
    int64_t,
    parallel,
    run_stages,
    runtime,
    stage,
    tasks_shared as count_of_tasks_shared,
)


cdef extern from *:
    """
    #include "kernel.h"
    static const char COMPILED[] =
        "baseline" IF_AVX2(" avx2") IF_AVX2VNNI(" avx2vnni") IF_AVX512(" avx512") IF_AMX(" amx");
    """
    const char *COMPILED

NAMES = ("baseline", "avx2", "avx2vnni", "avx512", "amx")  # in the order of the C enum
BUILT = tuple(COMPILED.decode().split())
AVAILABLE = tuple(name for name in BUILT if can_run(<instruction_set><int>NAMES.index(name)))

cdef runtime shared
shared.parallel = &parallel
capsule = PyCapsule_New(&shared, "minislm.kernels.runtime_cython.capsule", NULL)


def choose(str name):
    """Use an instruction set from now on; ValueError if it was not compiled or this processor lacks it."""
    if name not in AVAILABLE:
        raise ValueError(f"instruction set {name!r} is not available here; available: {', '.join(AVAILABLE)}")
    shared.chosen = <instruction_set><int>NAMES.index(name)


def chosen():
    """Name the instruction set in use."""
    return NAMES[<int>shared.chosen]


def tasks_shared():
    """Count the tasks that were shared among threads so far; the others ran on their caller alone."""
    return count_of_tasks_shared()


cdef int64_t now_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec * <int64_t>1000000000 + now.tv_nsec


cdef void wait(const void *task, int64_t first, int64_t last) noexcept nogil:
    cdef int64_t until = now_ns() + (last - first) * (<const int64_t *>task)[0]
    while now_ns() < until:
        pass


def barrier_ns(int threads, int64_t work_ns=5000, int n_stages=200):
    """Measure what one more stage costs a pass of `threads` threads beyond the work that each of them does in it."""
    stages = bytearray(n_stages * sizeof(stage))
    cdef stage *first = <stage *><char *>stages
    cdef int64_t begin
    cdef double over_ns
    cdef int i
    for i in range(n_stages):
        first[i].work, first[i].task, first[i].n, first[i].grain = &wait, &work_ns, threads, 1
    with nogil:
        begin = now_ns()
        run_stages(first, n_stages, threads)
        over_ns = (now_ns() - begin) / <double>n_stages - work_ns
    return over_ns


choose(os.environ.get("MINISLM_INSTRUCTION_SET", AVAILABLE[-1]))
