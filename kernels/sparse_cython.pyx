"""Compiled products with sparse matrices: checks, then the C of `c/sparse.c`.

Starts, masks and columns are checked by the C itself, row by row, before it follows them: the ValueError comes after.
"""

import numpy as np

from minislm.kernels import border, compressed

from codes cimport describe, packed
from libc.stdint cimport int32_t, uint8_t
from native cimport int64_t, kernel, parallel, reading, runtime, the_runtime, writing


cdef extern from "sparse.h" nogil:
    enum:
        MANY
        SPARSE_FEW
        UNIT_OUTPUTS
        UNIT_ROWS
    ctypedef struct sparse_task "struct sparse_task":
        const float *floats
        packed packed
        int64_t n_values
        const int64_t *starts
        const uint8_t *bits
        int64_t row_bytes
        const int32_t *columns
        int64_t inputs, outputs
        const float *x
        int64_t rows, x_stride
        float *y
        int64_t *bad
    ctypedef struct sparse_kernels "const struct sparse_kernels":
        kernel *bitmap
        kernel *csr
        kernel *csr_many
        kernel *bitmap_many
    sparse_kernels *sparse_kernels_for(int)

cdef const runtime *shared = the_runtime()
cdef int64_t WORTH = 65536  # stored values that are worth a thread's while
INT32 = np.dtype(np.int32)
assert compressed.FEW <= SPARSE_FEW


def bitmap_product(x_NI, mask_OP, values, starts, scales=None, zeros=None, *, format=None, out=None, int threads=1):
    """Same as `ops.bitmap.bitmap_product`."""
    x = border.checked(x_NI, "x", 2)
    mask = border.checked(mask_OP, "mask", 2, compressed.UINT8)
    border.same_shape(mask, "mask", (len(mask), -(-x.shape[1] // 8)))
    matrix = Matrix(x.shape[1], len(mask), threads)
    matrix.take_bits(mask)
    matrix.take_stream(values, starts, scales, zeros, format)
    y = border.output(out, (len(x), len(mask)), x)
    if len(x) > compressed.FEW:
        matrix.multiply_many(sparse_kernels_for(shared.chosen).bitmap_many, x, y)
    else:
        matrix.multiply(sparse_kernels_for(shared.chosen).bitmap, x, y)
    return border.delivered(y, out)


def csr_product(x_NI, values, columns, starts, scales=None, zeros=None, *, format=None, out=None, int threads=1):
    """Same as `ops.csr.csr_product`."""
    x = border.checked(x_NI, "x", 2)
    columns = border.checked(columns, "columns", 1, INT32)
    matrix = Matrix(x.shape[1], len(starts) - 1, threads)
    matrix.take_stream(values, starts, scales, zeros, format)
    border.same_shape(columns, "columns", (matrix.task.n_values,))
    matrix.take_columns(columns)
    y = border.output(out, (len(x), matrix.task.outputs), x)
    if len(x) <= 2:
        matrix.multiply(sparse_kernels_for(shared.chosen).csr, x, y)
    else:
        for first in range(0, len(x), MANY):
            block = np.zeros((x.shape[1], MANY), np.float32)
            block[:, : len(x) - first] = x[first : first + MANY].T
            matrix.multiply(sparse_kernels_for(shared.chosen).csr_many, block, y[first : first + MANY])
    return border.delivered(y, out)


cdef class Matrix:
    """A checked sparse matrix: keeps its arrays alive, and runs kernels on it."""

    cdef sparse_task task
    cdef object bad
    cdef list alive
    cdef int threads

    def __init__(self, int64_t inputs, int64_t outputs, int threads):
        self.task.inputs, self.task.outputs, self.threads = inputs, outputs, threads
        self.bad = np.zeros(1, np.int64)
        self.task.bad = <int64_t *>writing(self.bad)
        self.alive = []

    cdef take_bits(self, bits):
        self.task.bits, self.task.row_bytes = <const uint8_t *>reading(bits), bits.shape[1]
        self.alive.append(bits)

    cdef take_columns(self, columns):
        self.task.columns = <const int32_t *>reading(columns)
        self.alive.append(columns)

    cdef take_stream(self, values, starts, scales, zeros, format):
        """Take values that stand row after row, between starts."""
        starts = compressed.stream_starts(starts, self.task.outputs)
        self.task.starts = <const int64_t *>reading(starts)
        self.alive.append(starts)
        self.take_values(values, scales, zeros, format, None, starts[-1])

    cdef take_values(self, values, scales, zeros, format, n_rows, n_values):
        values, scales, zeros = compressed.stored_values(values, scales, zeros, format, n_rows, n_values)
        if format is None:
            self.task.floats = <const float *>reading(values)
        else:
            describe(&self.task.packed, values, scales, zeros, format, n_values)
        self.task.n_values = n_values
        self.alive.append((values, scales, zeros))

    cdef multiply(self, kernel *work, x, y):
        """Write x times the matrix's transpose to y, for few rows."""
        self.run(work, x, y, self.task.outputs, self.task.inputs * y.shape[0])

    cdef multiply_many(self, kernel *work, x, y):
        """Write x times the matrix's transpose to y, for many rows."""
        cdef int64_t parts = -(-len(x) // UNIT_ROWS), panels = -(-self.task.outputs // UNIT_OUTPUTS)
        cdef int64_t products = self.task.inputs * UNIT_OUTPUTS * min(len(x), UNIT_ROWS)
        self.run(work, x, y, parts * panels, products // 8)  # in tiles, they are so much faster

    cdef run(self, kernel *work, x, y, int64_t units, int64_t cost):
        """Share the units, each of which costs so many multiplications."""
        self.task.x, self.task.y = <const float *>reading(x), <float *>writing(y)
        self.task.rows, self.task.x_stride = y.shape[0], x.shape[1]
        with nogil:
            parallel(work, &self.task, sizeof(self.task), units, 1 + WORTH // (1 + cost), self.threads)
        self.check()

    cdef check(self):
        """Raise ValueError if a row pointed outside of its arrays."""
        if self.bad[0]:
            raise ValueError(
                f"the starts, mask or columns of row {self.bad[0] - 1} do not fit {self.task.n_values} values "
                f"and {self.task.inputs} inputs"
            )
