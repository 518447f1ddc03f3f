# What every border module needs of C: addresses of checked arrays, the thread pool, the instruction set in use.
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.pycapsule cimport PyCapsule_Import
from libc.stdint cimport int64_t


cdef extern from "threads.h" nogil:
    ctypedef void kernel(const void *task, int64_t first, int64_t last)
    ctypedef struct stage "struct stage":
        kernel *work
        const void *task
        int64_t n
        int64_t grain
        kernel *by_rows
        int64_t rows
        int64_t anew
        const int64_t *counts
        int64_t sequences
        int64_t longest
    void run_stages(const stage *stages, int64_t n_stages, int threads)
    ctypedef void stage_runner(const stage *stage, size_t size, int threads)
    ctypedef struct recording "struct recording":
        stage *stages
        int64_t n
        int failed
        void *owner
    recording *record(recording *where)
    recording *recorder()
    void forget_stages(recording *recorded, int64_t kept)
    ctypedef enum instruction_set "enum instruction_set":
        BASELINE
        AVX2
        AVX2VNNI
        AVX512
        AVX512VBMI2
        AMX
        DOTPROD
    ctypedef enum touch "enum touch":
        FIXED
        READ
        WRITTEN
    ctypedef struct runtime "struct runtime":
        instruction_set chosen
        stage_runner *run_stage
        int (*touched)(void *array, const void *start, int64_t size, touch how) except -1
    void run_stage(const stage *stage, size_t size, int threads)
    int64_t tasks_shared()
    bint can_run(instruction_set)


cdef extern from *:
    """
    static const struct runtime *runtime_here;
    """
    const runtime *runtime_here  # of the module that includes this


cdef inline const runtime *the_runtime() except NULL:
    """The record of runtime_cython; a border module keeps the pointer."""
    import minislm.kernels.runtime_cython  # PyCapsule_Import looks up attributes, so the module must be there
    global runtime_here
    runtime_here = <const runtime *>PyCapsule_Import("minislm.kernels.runtime_cython.capsule", 0)
    return runtime_here


cdef inline stage stage_of(kernel *work, const void *task, int64_t n, int64_t grain) noexcept nogil:
    """A task of n units, of which a thread takes at least `grain` at a time."""
    cdef stage whole
    whole.work, whole.task, whole.n, whole.grain = work, task, n, grain
    whole.by_rows, whole.rows, whole.anew = NULL, 0, 0
    whole.counts, whole.sequences, whole.longest = NULL, 0, 0
    return whole


cdef inline void parallel(kernel *work, const void *task, size_t size, int64_t n, int64_t grain, int threads) noexcept nogil:
    """Do a task of n units, of which a thread takes at least `grain` at a time."""
    cdef stage whole = stage_of(work, task, n, grain)
    runtime_here.run_stage(&whole, size, threads)


cdef inline void parallel_rows(kernel *work, const void *task, size_t size, int64_t n, int64_t grain, int threads) noexcept nogil:
    """The same where units are rows, and a row of results needs no other row than the same one of other results."""
    cdef stage whole = stage_of(work, task, n, grain)
    whole.by_rows, whole.rows = work, n
    runtime_here.run_stage(&whole, size, threads)


cdef inline const void *reading(object array) except? NULL:
    """Where the numbers of a C-contiguous array start; the caller keeps the array alive, and so does a recording."""
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, PyBUF_SIMPLE)
    PyBuffer_Release(&view)
    runtime_here.touched(<void *>array, view.buf, view.len, FIXED if view.readonly else READ)
    return view.buf


cdef inline void *writing(object array) except? NULL:
    """The same for an array that will be written: ValueError or BufferError if it is read-only."""
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, PyBUF_WRITABLE)
    PyBuffer_Release(&view)
    runtime_here.touched(<void *>array, view.buf, view.len, WRITTEN)
    return view.buf
