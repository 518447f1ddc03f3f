/* Dropout by counters. */
#ifndef MINISLM_DROPOUT_H
#define MINISLM_DROPOUT_H
#include "kernel.h"

enum { BLOCK = 2048 }; /* entries in a unit */

struct dropout_task {
    const float *x; /* n entries, or their result's gradients */
    float *y;
    unsigned char *kept; /* 1 or 0 for each; written by drop, read by drop_again */
    int64_t n;
    uint64_t start, threshold; /* of the stream, and what its outputs must reach */
    float factor;              /* 1 / (1 - rate) */
};

struct dropout_kernels {
    kernel *drop, *drop_again; /* units: blocks of entries */
};
FAMILY(dropout_kernels)
#endif
