#ifndef MINISLM_QUANTIZED_H
#define MINISLM_QUANTIZED_H
#include "codes.h"

struct decode_task {
    struct packed w;
    const int64_t *rows; /* which rows of w are wanted */
    float *out;          /* (N, inputs) */
};

struct quantized_kernels {
    kernel *decode; /* unit: a row of `out` */
};
FAMILY(quantized_kernels)
#endif
