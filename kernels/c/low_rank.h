/* The product of few rows with a plain matrix; two of them make the product with a matrix of low rank. */
#ifndef MINISLM_LOW_RANK_H
#define MINISLM_LOW_RANK_H
#include "kernel.h"

struct factor_task {
    const float *x, *w; /* (n, inputs), (outputs, inputs) */
    float *y;           /* (n, outputs) */
    int64_t n, inputs, outputs;
};

struct low_rank_kernels {
    kernel *factor; /* unit: an output */
};
FAMILY(low_rank_kernels)
#endif
