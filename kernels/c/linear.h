/* The affine maps without a product. */
#ifndef MINISLM_LINEAR_H
#define MINISLM_LINEAR_H
#include "kernel.h"

struct rows_task {
    const float *x, *b; /* (N, O), (O,) */
    float *y;           /* (N, O), may be x */
    int64_t o;
};

struct add_task {
    const float *x, *y;
    float *z; /* may be x or y */
    int64_t n, width; /* numbers, of which so many are a unit: a row */
};

struct linear_kernels {
    kernel *add, *add_bias, *scale; /* x + y, x + b and x * b; units: rows */
};
FAMILY(linear_kernels)
#endif
