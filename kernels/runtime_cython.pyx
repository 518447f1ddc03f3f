# distutils: sources = kernels/c/threads.c kernels/c/processor.c
"""The instruction set that the compiled kernels use, and the one thread pool that they share."""

import os

from cpython.pycapsule cimport PyCapsule_New
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from native cimport (
    FIXED,
    WRITTEN,
    can_run,
    forget_stages,
    instruction_set,
    int64_t,
    parallel,
    record,
    recorder,
    recording,
    run_stages,
    runtime,
    stage,
    tasks_shared as count_of_tasks_shared,
    touch,
)


cdef extern from *:
    """
    #include "kernel.h"
    static const char COMPILED[] =
        "baseline" IF_AVX2(" avx2") IF_AVX2VNNI(" avx2vnni") IF_AVX512(" avx512")
        IF_AVX512VBMI2(" avx512vbmi2") IF_AMX(" amx");
    """
    const char *COMPILED

NAMES = ("baseline", "avx2", "avx2vnni", "avx512", "avx512vbmi2", "amx")  # in the order of the C enum
BUILT = tuple(COMPILED.decode().split())
AVAILABLE = tuple(name for name in BUILT if can_run(<instruction_set><int>NAMES.index(name)))

cdef runtime shared
shared.parallel = &parallel
shared.touched = &touched
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


cdef int touched(void *array, const void *start, int64_t size, touch how) except -1:
    """Tell this thread's recording, if there is one, of an array that a task points to."""
    cdef recording *now = recorder()
    if now is not NULL:
        (<Recording>now.owner).touch(<object>array, <int64_t>start, size, how)
    return 0


cdef class Recording:
    """Steps that compiled kernels did, to be done again by one call: the same tasks, over the same memory.

    A step can be done again if its tasks read nothing but memory that is known, and write all of its result. Known is
    what the caller says, what is read-only, and what tasks of this recording write. Memory that Python code of a kernel
    fills, such as a copy in another layout, is not: tasks alone would find in it what was there before. What a kernel
    computes from the numbers in its arguments stands in its tasks too: it may follow their shapes, and of positions
    and lengths nothing but the power of two that the longest rounds up to (`border.rounded_up`).

    Parameters
    ----------
    known : list of ndarray
        Memory that the caller keeps in place, and whose numbers it may change.
    """

    cdef recording stages
    cdef list known, held
    cdef int64_t first, last
    cdef bint strange, delivered

    def __init__(self, known):
        self.stages.owner = <void *>self
        self.known, self.held = [extent(array) for array in known], list(known)

    def __dealloc__(self):
        forget_stages(&self.stages, 0)

    def __len__(self):
        """Tasks."""
        return self.stages.n

    def step(self, run, result, constants):
        """Do a step and write it down.

        Parameters
        ----------
        run : callable
            Does it.
        result : ndarray
            What it fills.
        constants : sequence of ndarray
            Memory that nobody writes, known for this step.

        Returns
        -------
        bool
            Whether it can be done again. If not it is done, but not written down.
        """
        cdef int64_t n_before = self.stages.n, n_known = len(self.known), n_held = len(self.held)
        self.first, self.last = extent(result)
        self.strange, self.delivered = False, self.first == self.last
        self.known += [extent(array) for array in constants]
        cdef recording *before = record(&self.stages)
        try:
            run()
        finally:
            record(before)
            del self.known[n_known : n_known + len(constants)]
        if self.strange or not self.delivered or self.stages.failed or self.stages.n == n_before:
            forget_stages(&self.stages, n_before)
            del self.known[n_known:], self.held[n_held:]
            return False
        return True

    def run(self, int threads):
        """Do all steps again."""
        with nogil:
            run_stages(self.stages.stages, self.stages.n, threads)

    cdef int touch(self, array, int64_t start, int64_t size, touch how) except -1:
        cdef int64_t first, last
        self.held.append(array)
        if how == WRITTEN:
            self.known.append((start, start + size))
            self.delivered |= start <= self.first and self.last <= start + size
        elif how != FIXED:
            for first, last in self.known:
                if first <= start and start + size <= last:
                    return 0
            self.strange = True
        return 0


cdef extent(array):
    """The first address of an array, and the one behind it; kernels take no others than those that fill what is between."""
    start = array.__array_interface__["data"][0]
    return start, start + array.nbytes


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
