# distutils: sources = kernels/c/threads.c kernels/c/joined.c kernels/c/processor.c
"""The instruction set that the compiled kernels use, and the one thread pool that they share."""

import os

from cpython.pycapsule cimport PyCapsule_New
from libc.stdlib cimport free, malloc
from libc.string cimport memmove
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from native cimport (
    FIXED,
    WRITTEN,
    can_run,
    forget_stages,
    instruction_set,
    int64_t,
    record,
    recorder,
    recording,
    run_stage,
    run_stages,
    runtime,
    stage,
    tasks_shared as count_of_tasks_shared,
    touch,
)


cdef extern from "joined.h" nogil:
    bint joinable(const stage *, int threads)
    stage joined(const stage *, int64_t n, int threads)
    int64_t chainable(const stage *, int64_t n, int threads)
    stage chained(const stage *, int64_t n)
    void part(const stage *)
    int64_t tasks_of(const stage *)

cdef extern from *:
    """
    #include "kernel.h"
    static const char COMPILED[] =
        "baseline" IF_AVX2(" avx2") IF_AVX2VNNI(" avx2vnni") IF_AVX512(" avx512")
        IF_AVX512VBMI2(" avx512vbmi2") IF_AMX(" amx") IF_DOTPROD(" dotprod");
    """
    const char *COMPILED

NAMES = ("baseline", "avx2", "avx2vnni", "avx512", "avx512vbmi2", "amx", "dotprod")  # in the order of the C enum
BUILT = tuple(COMPILED.decode().split())
AVAILABLE = tuple(name for name in BUILT if can_run(<instruction_set><int>NAMES.index(name)))

cdef runtime shared
shared.run_stage = &run_stage
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
    """Steps that compiled kernels do, to be done by one call, often: the same tasks, over the same memory.

    A step can be written down if its tasks read nothing but memory that is known, and write all of its result. Known is
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
    cdef stage *joined  # what `run` does; NULL: the stages one after the other
    cdef int64_t n_joined
    cdef list known, held, touches  # of each stage: the arrays of its step, and whether it writes them
    cdef int64_t first, last
    cdef bint strange, delivered

    def __init__(self, known):
        self.stages.owner = <void *>self
        self.known, self.held, self.touches = [extent(array) for array in known], list(known), []

    def __dealloc__(self):
        self.part()
        forget_stages(&self.stages, 0)

    def __len__(self):
        """Tasks."""
        return self.stages.n

    def sizes(self):
        """Of each stage that `run` does after `join`: its rows, 0 where they depend on others, and how many tasks it joins."""
        return [(self.joined[i].rows, tasks_of(&self.joined[i])) for i in range(self.n_joined)]

    def step(self, run, result, constants):
        """Write a step down. Its tasks are not done, and what Python does of it is done with the numbers that are there.

        Parameters
        ----------
        run : callable
            Does it elsewhere.
        result : ndarray
            What it is to fill.
        constants : sequence of ndarray
            Memory that nobody writes, known for this step.

        Returns
        -------
        bool
            Whether it is written down. If not, its caller has to do it.
        """
        cdef int64_t n_before = self.stages.n, n_known = len(self.known), n_held = len(self.held)
        self.first, self.last = extent(result)
        self.strange, self.delivered = False, self.first == self.last
        self.known += [extent(array) for array in constants]
        cdef recording *before = record(&self.stages)
        touched = []
        self.touches.append(touched)
        try:
            run()
        finally:
            record(before)
            self.touches.pop()
            del self.known[n_known : n_known + len(constants)]
        if self.strange or not self.delivered or self.stages.failed or self.stages.n == n_before:
            forget_stages(&self.stages, n_before)
            del self.known[n_known:], self.held[n_held:]
            return False
        self.touches += [touched] * (self.stages.n - n_before)
        return True

    def join(self, int threads):
        """Let `run` do stages of which each needs but the same row of those before it block of rows by block of rows.

        Then these and attention, whose rows need those of their own sequence, sequence by sequence. Buffers share
        memory, and a block may be ahead of another: of two arrays of joined stages one of which is written, no part may
        be in common, unless they are the same rows.
        """
        cdef int64_t first = 0, n, size = max(1, self.stages.n) * sizeof(stage)
        cdef list touches = []
        self.part()
        self.joined = <stage *>malloc(size)
        if self.joined is NULL:
            raise MemoryError()
        while first < self.stages.n:
            n = 1
            arrays = list(self.touches[first])
            while joinable(&self.stages.stages[first], threads) and first + n < self.stages.n:
                if not joinable(&self.stages.stages[first + n], threads):
                    break
                if self.stages.stages[first + n].rows != self.stages.stages[first].rows:
                    break
                if self.touches[first + n] is self.touches[first + n - 1] or clash(arrays, self.touches[first + n]):
                    break
                arrays += self.touches[first + n]
                n += 1
            self.joined[self.n_joined] = self.stages.stages[first]
            if n > 1:
                self.joined[self.n_joined] = joined(&self.stages.stages[first], n, threads)
                if self.joined[self.n_joined].task is NULL:
                    raise MemoryError()
            touches.append(arrays)
            self.n_joined += 1
            first += n
        self.chain(touches, threads)

    cdef int chain(self, list touches, int threads) except -1:
        """Join what is joined so far, sequence by sequence; `touches` are the arrays of each."""
        cdef int64_t first = 0, most, n
        cdef stage whole
        while first < self.n_joined:
            most, n, arrays = chainable(&self.joined[first], self.n_joined - first, threads), 0, []
            while n < most and not clash(arrays + touches[first + n], touches[first + n]):
                arrays += touches[first + n]
                n += 1
            if n > 1 and chainable(&self.joined[first], n, threads) == n:
                whole = chained(&self.joined[first], n)
                if whole.task is NULL:
                    raise MemoryError()
                self.joined[first] = whole
                self.n_joined -= n - 1
                memmove(&self.joined[first + 1], &self.joined[first + n], (self.n_joined - first - 1) * sizeof(stage))
                del touches[first + 1 : first + n]
            first += 1
        return 0

    def run(self, int threads):
        """Do all steps."""
        with nogil:
            if self.joined is NULL:
                run_stages(self.stages.stages, self.stages.n, threads)
            else:
                run_stages(self.joined, self.n_joined, threads)

    cdef void part(self):
        """Undo `join`."""
        cdef int64_t i
        for i in range(self.n_joined):
            part(&self.joined[i])
        free(self.joined)
        self.joined, self.n_joined = NULL, 0

    cdef int touch(self, array, int64_t start, int64_t size, touch how) except -1:
        cdef int64_t first, last
        self.held.append(array)
        self.touches[-1].append((start, start + size, how == WRITTEN))
        if how == WRITTEN:
            self.known.append((start, start + size))
            self.delivered |= start <= self.first and self.last <= start + size
        elif how != FIXED:
            for first, last in self.known:
                if first <= start and start + size <= last:
                    return 0
            self.strange = True
        return 0


cdef bint clash(list arrays, list others):
    """Whether some have memory in common that one of them writes, and are not the same."""
    cdef int64_t first, last, start, end
    for first, last, writes in arrays:
        for start, end, also in others:
            if (writes or also) and first < end and start < last and not (first == start and last == end):
                return True
    return False


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
