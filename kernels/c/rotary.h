/* Rotary positions. */
#ifndef MINISLM_ROTARY_H
#define MINISLM_ROTARY_H
#include "kernel.h"

struct rotary_task {
    const float *x;             /* (N, H, K) */
    const float *cosine, *sine; /* a table of `pairs` columns each */
    const int64_t *positions;   /* (N,): the rows of these; or null: row n is n's */
    float *y;                   /* like x */
    int64_t heads, width, pairs;    /* width is K; entries from 2 * pairs on pass through */
    int interleaved;
    float direction; /* 1 turns forward, -1 back */
};

struct rotary_kernels {
    kernel *rotate; /* units: rows */
};
FAMILY(rotary_kernels)
#endif
