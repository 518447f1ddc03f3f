/* Softmax over rows. */
#ifndef MINISLM_SOFTMAX_H
#define MINISLM_SOFTMAX_H
#include "kernel.h"

struct softmax_task {
    const float *x, *p; /* (N, V); for the backward x is dp */
    float *y;           /* (N, V) */
    int64_t v;
};

struct softmax_kernels {
    kernel *softmax, *softmax_backward; /* units: rows */
};
FAMILY(softmax_kernels)
#endif
