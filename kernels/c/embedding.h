/* Looking rows up, and its gradient. */
#ifndef MINISLM_EMBEDDING_H
#define MINISLM_EMBEDDING_H
#include "kernel.h"

enum { COLUMNS_PER_UNIT = 64 };

struct embedding_task {
    const float *w;     /* (V, D) */
    const int64_t *ids; /* (N,): rows of w */
    float *x;           /* (N, D) */
    int64_t d;
};

struct embedding_backward_task {
    const float *dx;    /* (N, D) */
    const int64_t *ids; /* (N,): rows of dw */
    float *dw;          /* (V, D) */
    int64_t n, v, d;
};

struct embedding_kernels {
    kernel *embedding;          /* units: rows */
    kernel *embedding_backward; /* units: COLUMNS_PER_UNIT columns, because several dx may go to one row */
};
FAMILY(embedding_kernels)
#endif
