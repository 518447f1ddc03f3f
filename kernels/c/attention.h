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

/* Rows that a unit does at once: query heads of tokens. */
enum { TILE_ROWS = 64 };

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
    struct scoring scoring;
};

/* Query heads that a unit does together: those that share a key head, up to the rows of a tile. Tokens of a tile. */
static inline int64_t attention_team(int64_t h, int64_t g) { return smaller(h / g, TILE_ROWS); }
static inline int64_t attention_tokens(int64_t h, int64_t g) { return TILE_ROWS / attention_team(h, g); }

/* Units of the kernel `attention`: (team of heads, tile of tokens, share). */
static inline int64_t attention_units(const struct attention_task *a) {
    int64_t team = attention_team(a->h, a->g), tokens = attention_tokens(a->h, a->g);
    return a->g * ((a->h / a->g + team - 1) / team) * ((a->rows + tokens - 1) / tokens) * a->shares;
}

struct attention_kernels {
    kernel *attention;
    kernel *attention_joined; /* after it, where there is more than one share; units: (row, query head) */
};
FAMILY(attention_kernels)
#endif
