#ifndef MINISLM_QUANTIZED_H
#define MINISLM_QUANTIZED_H
#include "codes.h"

enum { FEW = 16, FEWEST = 4 }; /* most rows of x that `product` takes; how many at a time */

struct decode_task {
    struct packed w;
    const int64_t *rows; /* which row of w unit n is; null: row start + n */
    int64_t start;
    float *out; /* (N, inputs) */
};

struct product_task {
    struct packed w;
    const float *x; /* (n, x_stride): rows that end in zeros, a multiple of 32 */
    float *y;       /* (n, O) */
    int64_t n, x_stride, outputs;
};

struct quantized_kernels {
    kernel *decode;  /* unit: a row of `out` */
    kernel *product; /* unit: an output */
};
FAMILY(quantized_kernels)
#endif
