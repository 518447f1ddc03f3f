#ifndef MINISLM_NORM_H
#define MINISLM_NORM_H
#include "kernel.h"

struct norm_task {
    const float *x, *w; /* (N, D), (D,) */
    float *y, *r;       /* (N, D), (N,) */
    int64_t d;
    float eps;
};

struct norm_kernels {
    kernel *rms_norm;
};
FAMILY(norm_kernels)
#endif
