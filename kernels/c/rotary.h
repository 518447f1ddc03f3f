/* Rotary positions. */
#ifndef MINISLM_ROTARY_H
#define MINISLM_ROTARY_H
#include "kernel.h"

struct rotary_task {
    const float *x, *cosine, *sine; /* (N, H, K), (N, pairs), (N, pairs) */
    float *y;                       /* (N, H, K) */
    int64_t heads, width, pairs;    /* width is K; entries from 2 * pairs on pass through */
    int interleaved;
    float direction; /* 1 turns forward, -1 back */
};

struct rotary_kernels {
    kernel *rotate; /* units: rows */
};
FAMILY(rotary_kernels)
#endif
