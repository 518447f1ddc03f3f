# distutils: sources = kernels/c/threads.c
"""The instruction set that the compiled kernels use, and the one thread pool that they share."""

import os

from cpython.pycapsule cimport PyCapsule_New

from native cimport best_instruction_set, instruction_set, parallel, runtime, tasks_shared as count_of_tasks_shared


cdef extern from *:
    """
    #ifdef HAVE_avx2
    #define BUILT_AVX2 1
    #else
    #define BUILT_AVX2 0
    #endif
    #ifdef HAVE_avx512
    #define BUILT_AVX512 1
    #else
    #define BUILT_AVX512 0
    #endif
    """
    bint BUILT_AVX2, BUILT_AVX512

NAMES = ("baseline", "avx2", "avx512")  # in the order of the C enum
BUILT = tuple(name for name, built in zip(NAMES, (True, BUILT_AVX2, BUILT_AVX512), strict=True) if built)
AVAILABLE = tuple(name for name in BUILT if NAMES.index(name) <= <int>best_instruction_set())

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


choose(os.environ.get("MINISLM_INSTRUCTION_SET", AVAILABLE[-1]))
