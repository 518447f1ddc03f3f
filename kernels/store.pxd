# How borders hand rows of keys and values over as a cache stores them.
from native cimport reading, writing


cdef extern from "store.h" nogil:
    ctypedef enum stored "enum stored":
        STORED_FLOAT
        STORED_HALF
        STORED_BYTES
    ctypedef struct store "struct store":
        void *rows
        float *scales
        stored dtype


cdef inline int enter_store(store *to, rows, scales, bint writes) except -1:
    """Enter checked arrays; the caller keeps them alive."""
    from minislm.kernels import border

    to.rows = writing(rows) if writes else <void *>reading(rows)
    to.scales = NULL
    if scales is not None:
        to.scales = <float *>writing(scales) if writes else <float *>reading(scales)
    to.dtype = STORED_FLOAT
    if rows.dtype == border.FLOAT16:
        to.dtype = STORED_HALF
    elif rows.dtype == border.INT8:
        to.dtype = STORED_BYTES
    return 0
