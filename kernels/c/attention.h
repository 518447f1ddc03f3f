/* Scaled dot-product attention. */
#ifndef MINISLM_ATTENTION_H
#define MINISLM_ATTENTION_H
#include "kernel.h"

/* Numbers in a transposed row of keys: their count rounded up, so that registers may read past the last one. */
#define PADDED_KEYS(s) (((s) + 15) / 16 * 16)

struct attention_task {
    const float *q, *k, *v, *y, *dy; /* (B, T, H, K), (B, S, G, K), (B, S, G, K), and for the backward two like q */
    const uint8_t *key_mask;         /* (B, S), 0 where nobody sees the key; or null */
    const int64_t *starts;           /* (B,): position of each row's first query; or null: 0 */
    const float *bias;               /* (H, 2 reach + 1): added to the scores by distance; or null */
    float *result, *dq, *dk, *dv;    /* like q; for the backward like q, k, v */
    float *dbias;                    /* (B, H, 2 reach + 1), zeros at first; or null */
    float *logsumexp;                /* (B, H, T) */
    float *scratch;                  /* for each unit 2, in the backward 5 arrays of width * PADDED_KEYS(s) */
    int64_t t, s, h, g, width;
    int64_t window; /* at most this far apart plus one; 0: any distance */
    int64_t reach;
    int causal;
    float scale, cap; /* cap 0: none */
};

struct attention_one_task {
    const float *q, *k, *v;        /* (B, H, K), (C, S, G, K), (C, S, G, K) */
    const int64_t *slots, *lengths; /* (B,), (B,) */
    const float *bias;             /* (H, 2 reach + 1), or null */
    float *y, *scratch;            /* (B, H, K), (B, H, S) */
    int64_t s, h, g, width, window, reach;
    int64_t together; /* key heads of a unit */
    float scale, cap; /* cap 0: none */
};

struct attention_kernels {
    kernel *attention;          /* units: (row, query head) */
    kernel *attention_backward; /* units: (row, key head), with all query heads that share it */
    kernel *attention_one;      /* units: (row, `together` key heads) */
};
FAMILY(attention_kernels)
#endif
