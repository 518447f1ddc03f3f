# A packed matrix, as C sees it.
from libc.string cimport memcpy
from native cimport int64_t, reading


cdef extern from "codes.h" nogil:
    enum:
        RUN
        BLOCK
        PADDING
    ctypedef struct packed "struct packed":
        const unsigned char *codes
        const unsigned char *end
        const void *scales
        const unsigned char *zeros
        int64_t inputs
        int group_shift
        int64_t row_bytes, row_groups
        int bits, zero, half_scales, tabled
        unsigned char table[16]


cdef inline int take_table(unsigned char *table, format) except -1:
    """Copy the table of a format, if it has one, and return the code of zero once codes are looked up there."""
    if format.table is None:
        return format.zero
    memcpy(table, reading(format.table), 16)
    return 128


cdef inline int describe(packed *w, codes, scales, zeros, format, int64_t inputs) except -1:
    """Fill the record for arrays that `compressed.packed` has checked, and that the caller keeps alive."""
    cdef int group = format.group
    w.codes = <const unsigned char *>reading(codes)
    w.end = w.codes + <int64_t>codes.size
    w.scales = reading(scales)
    w.zeros = NULL
    if zeros is not None:
        w.zeros = <const unsigned char *>reading(zeros)
    w.inputs, w.row_bytes, w.row_groups = inputs, codes.shape[1], scales.shape[1]
    w.group_shift = 62 if group == 0 else group.bit_length() - 1
    w.bits, w.half_scales, w.tabled = format.bits, scales.itemsize == 2, format.table is not None
    w.zero = take_table(w.table, format)
    return 0
