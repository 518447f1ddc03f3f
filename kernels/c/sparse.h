/* Products with matrices of which only some entries are stored. No index is trusted: a task's `bad` becomes the number,
   counted from 1, of a row that points outside of its arrays, and nothing is read there. */
#ifndef MINISLM_SPARSE_H
#define MINISLM_SPARSE_H
#include "codes.h"

struct sparse_task {
    const float *floats; /* stored values, row after row; null: they are the codes of `packed` */
    struct packed packed;
    int64_t n_values;
    const int64_t *starts; /* (outputs + 1,): where each row's values begin and end */
    const uint8_t *bits;  /* (outputs, row_bytes) bytes: mask of a bitmap */
    int64_t row_bytes;
    const int32_t *columns; /* (n_values,) of csr */
    int64_t inputs, outputs;
    const float *x; /* (rows, x_stride); for csr_many (inputs, MANY) columns of it */
    int64_t rows, x_stride;
    float *y; /* (rows, outputs) */
    int64_t *bad;
};

enum { SPARSE_FEW = 16, FEWEST = 4, MANY = 16, UNIT_ROWS = 512, UNIT_OUTPUTS = 32 };

struct sparse_kernels {
    kernel *bitmap, *csr; /* for at most SPARSE_FEW rows of x; a unit is an output */
    kernel *csr_many;     /* for at most MANY rows of x, given as columns */
    kernel *bitmap_many;  /* for any rows; a unit is UNIT_OUTPUTS outputs of UNIT_ROWS rows */
};
FAMILY(sparse_kernels)
#endif
