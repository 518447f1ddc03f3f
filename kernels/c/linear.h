/* The affine maps without a product. */
#ifndef MINISLM_LINEAR_H
#define MINISLM_LINEAR_H
#include "kernel.h"

struct rows_task {
    const float *x, *b; /* (N, O), (O,) */
    float *y;           /* (N, O), may be x */
    int64_t o;
};

enum { BLOCK = 2048 }; /* numbers in a unit of `add` */

struct add_task {
    const float *x, *y;
    float *z; /* may be x or y */
    int64_t n;
};

struct linear_kernels {
    kernel *add;             /* units: blocks */
    kernel *add_bias, *scale; /* x + b and x * b; units: rows */
};
FAMILY(linear_kernels)
#endif
