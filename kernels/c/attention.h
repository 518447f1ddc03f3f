/* Scaled dot-product attention of packed queries. */
#ifndef MINISLM_ATTENTION_H
#define MINISLM_ATTENTION_H
#include "scores.h"
#include "store.h"

/* Keys whose weighted values are summed apart, before they are added up in the order of the keys: so units may share the
   keys of a query among them, and the sum stays the same. */
enum { SPAN = 512 };

/* Room behind the values that a row has gathered over a span: for its total, still in as many parts as a register has, and its
   largest score. */
enum { PART = 17 };

/* Rows, which are query heads of tokens, that a unit does at once; and numbers of those that a unit has room for. */
enum { LEAST_ROWS = 64, MOST_ROWS = 256, MOST_NUMBERS = LEAST_ROWS * 256 };

struct attention_task {
    const float *q;           /* (rows, H, K) */
    struct store k, v;        /* (R, G, K) */
    const int64_t *counts;    /* (B,): queries of each sequence, packed one sequence after the other */
    const int64_t *firsts;    /* (B,): row of its first key */
    const int64_t *lengths;   /* (B,): its keys */
    const int64_t *positions; /* (B,): where its first query stands among them; or null: so that its last stands at the last */
    const uint8_t *key_mask;  /* (R,), 0 where nobody sees the key; or null */
    float *y;                 /* like q */
    float *logsumexp;         /* (rows / t, H, t); or null */
    float *parts;             /* (rows, H, spans, K + PART), where queries are shared out along the keys */
    int64_t b, rows, t;
    int64_t shares; /* units that share the spans of one query: each takes the next in turn; 1: they write y themselves */
    int64_t spans;  /* of the longest sequence that there may be */
    int64_t h, g, width;
    int64_t tile; /* rows of a unit; what a row gives does not depend on it */
    struct scoring scoring;
};

/* Query heads that a unit does together: those that share a key head, up to the rows of a tile. Tokens of a tile. */
static inline int64_t attention_team(const struct attention_task *a) { return smaller(a->h / a->g, a->tile); }
static inline int64_t attention_tokens(const struct attention_task *a) { return a->tile / attention_team(a); }

/* Units of the kernel `attention`: (share, team of heads, tile of tokens). */
static inline int64_t attention_units(const struct attention_task *a) {
    int64_t team = attention_team(a), tokens = attention_tokens(a);
    return a->g * ((a->h / a->g + team - 1) / team) * ((a->rows + tokens - 1) / tokens) * a->shares;
}

/* Rows of a tile: the more there are, the fewer times are keys laid out; but there should be `units` of them. */
static inline int64_t attention_tile(struct attention_task *a, int64_t units) {
    a->tile = smaller(MOST_ROWS, MOST_NUMBERS / a->width);
    while (a->tile > LEAST_ROWS && attention_units(a) < units) a->tile = a->tile / 2 < LEAST_ROWS ? LEAST_ROWS : a->tile / 2;
    return a->tile;
}

struct attention_kernels {
    kernel *attention;
    kernel *attention_by_rows;
    kernel *attention_joined; /* after it, where there is more than one share; units: (row, query head) */
};
FAMILY(attention_kernels)
#endif
