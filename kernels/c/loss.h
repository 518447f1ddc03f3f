/* Cross-entropy. */
#ifndef MINISLM_LOSS_H
#define MINISLM_LOSS_H
#include "kernel.h"

struct cross_entropy_task {
    const float *logits;    /* (N, V) */
    const int64_t *targets; /* (N,): a column, or `ignore` */
    float *top, *total;     /* (N,): largest logit, sum of the exponentials relative to it; read by the backward */
    float *loss;            /* (N,), 0 where the target is ignored */
    float *dlogits;         /* (N, V) */
    int64_t v, ignore;
    float smoothing, share; /* the backward multiplies by share: dloss / number of targets kept */
};

struct loss_kernels {
    kernel *cross_entropy, *cross_entropy_backward; /* units: rows */
};
FAMILY(loss_kernels)
#endif
