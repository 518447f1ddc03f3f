/* The backward of scaled dot-product attention. */
#ifndef MINISLM_ATTENTION_BACKWARD_H
#define MINISLM_ATTENTION_BACKWARD_H
#include "scores.h"

struct attention_backward_task {
    const float *dy, *q, *k, *v, *y; /* dy, q and y (B, T, H, K), k and v (B, S, G, K) */
    const float *logsumexp;          /* (B, H, T) */
    const uint8_t *key_mask;         /* (B, S), 0 where nobody sees the key; or null */
    const int64_t *starts;           /* (B,): position of each row's first query; or null: 0 */
    float *dq, *dk, *dv;             /* like q, k, v */
    float *dbias;                    /* (B, H, 2 reach + 1), zeros at first; or null */
    int64_t t, s, h, g, width;
    struct scoring scoring;
};

struct attention_backward_kernels {
    kernel *attention_backward; /* units: (row, key head), with all query heads that share it */
};
FAMILY(attention_backward_kernels)
#endif
