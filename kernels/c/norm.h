/* Layer norm and RMS norm. */
#ifndef MINISLM_NORM_H
#define MINISLM_NORM_H
#include "kernel.h"

enum { ROWS_PER_PART = 64 }; /* rows whose shares of dw and db are added up together: the unit of the backwards */

struct norm_task {
    const float *x, *w, *b; /* (N, D), (D,), (D,) */
    float *y, *mean, *r;    /* (N, D), (N,), (N,) */
    int64_t d;
    float eps;
};

struct norm_backward_task {
    const float *dy, *x, *w, *mean, *r; /* (N, D), (N, D), (D,), (N,), (N,) */
    float *dx, *dw, *db;                /* (N, D), and a row of D for each part */
    int64_t n, d;
};

struct norm_kernels {
    kernel *layer_norm, *rms_norm;                   /* units: rows */
    kernel *layer_norm_backward, *rms_norm_backward; /* units: parts of ROWS_PER_PART rows */
};
FAMILY(norm_kernels)
#endif
