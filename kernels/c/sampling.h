/* Distributions that tokens are drawn from. */
#ifndef MINISLM_SAMPLING_H
#define MINISLM_SAMPLING_H
#include "kernel.h"

struct sampling_task {
    const float *logits; /* (N, V) */
    float *p;            /* (N, V) */
    int64_t v, top_k;    /* top_k: V or more for all */
    float temperature, top_p, min_p;
};

struct sampling_kernels {
    kernel *token_probabilities; /* units: rows */
};
FAMILY(sampling_kernels)
#endif
