# A matrix in panels, as C sees it.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t
from codes cimport take_table
from native cimport reading, writing


cdef extern from "panels.h" nogil:
    enum:
        SLACK
    ctypedef struct masks "struct masks":
        const uint16_t *bits
        const int64_t *starts
        int64_t n_values
        int64_t *bad
    ctypedef struct panels "struct panels":
        const uint8_t *lines
        masks masks
        const int32_t *columns
        const void *scales
        const uint8_t *zeros
        int tabled
        uint8_t table[16]
        int64_t outputs, inputs, blocks, groups, group_blocks
        int bits, zero, half_scales, absent
        const unsigned short *supers
        int64_t supers_of_panel


cdef inline int describe(panels *w, lines, scales, zeros, format, int64_t inputs, int64_t outputs) except -1:
    """Fill the record for arrays that `compressed.in_panels` has checked, and that the caller keeps alive."""
    w.lines, w.scales, w.zeros = <const uint8_t *>reading(lines), reading(scales), NULL
    if zeros is not None:
        w.zeros = <const uint8_t *>reading(zeros)
    w.outputs, w.inputs, w.blocks, w.groups = outputs, inputs, (inputs + 63) // 64 * 2, scales.shape[1]
    w.group_blocks, w.bits, w.absent, w.supers = format.group // 32, format.bits, format.zero, NULL
    w.tabled, w.zero = format.table is not None, take_table(w.table, format)
    w.masks.bits, w.columns, w.half_scales = NULL, NULL, format.group > 0
    return 0


cdef inline int describe_masks(panels *w, masks, starts, bad, int64_t n_values) except -1:
    """Add which entries are stored, after `describe` or without it; `bad` becomes other than 0 where that does not fit."""
    w.masks.bits, w.masks.starts = <const uint16_t *>reading(masks), <const int64_t *>reading(starts)
    w.masks.n_values, w.masks.bad = n_values, <int64_t *>writing(bad)
    w.blocks = masks.shape[1] // 32
    return 0


cdef inline int describe_blocks(panels *w, lines, scales, supers, least, codes, int64_t inputs, int64_t outputs) except -1:
    """The same for scales of two levels, which `compressed.in_block_panels` has checked."""
    describe(w, lines, scales, least, codes, inputs, outputs)
    w.supers, w.supers_of_panel = <const unsigned short *>reading(supers), supers.shape[1]
    return 0


cdef inline int describe_columns(panels *w, columns, starts, bad) except -1:
    """Add which blocks are stored, with scales of their own, after `describe`."""
    w.columns, w.groups, w.group_blocks = <const int32_t *>reading(columns), 0, 1
    w.masks.starts, w.masks.n_values = <const int64_t *>reading(starts), columns.shape[0]
    w.masks.bad = <int64_t *>writing(bad)
    return 0
