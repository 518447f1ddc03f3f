/* Backward of attention by tiles of COLUMNS keys, which meet the queries in strips. The probabilities are computed again, from
   the logarithms of their sums that the forward stored; neither they nor the scores' gradients leave the nearest cache (Dao
   2023, arXiv 2307.08691, algorithm 2). */
#include "attention_backward.h"

/* A tile of keys of one row and key head, and what it has gathered of their gradients: (n, width), or across. */
struct tile {
    int64_t b, group;
    struct range keys;
    const float *k;
    float *keys_across, *values_across, *dk, *dv;
};

/* Query rows [t, t + n) of head h: add to the tile's dk and dv, and to dq. */
static void meet(const struct attention_backward_task *a, const struct tile *w, int64_t h, int64_t t, int64_t n) {
    const int64_t width = a->width, q_row = a->h * width, start = (w->b * a->t + t) * q_row + h * width;
    const int64_t position = t + (a->starts ? a->starts[w->b] : 0);
    struct range keys = visible(&a->scoring, position, n, w->keys.last);
    if (keys.last <= w->keys.first || keys.first >= w->keys.last) return;
    keys.first = w->keys.first;
    const int64_t columns = keys.last - keys.first, padded = (columns + LANES - 1) / LANES * LANES;
    const float *dy = a->dy + start, *logsumexp = a->logsumexp + (w->b * a->h + h) * a->t + t;
    float p[STRIP * COLUMNS] __attribute__((aligned(64))), ds[STRIP * COLUMNS] __attribute__((aligned(64)));
    float q[STRIP * width] __attribute__((aligned(64))), slope[COLUMNS];
    for (int64_t i = 0; i < n; i++)
        for (int64_t l = 0; l < width; l++) q[i * width + l] = a->q[start + i * q_row + l] * a->scoring.scale;
    set_product(n, padded, width, (struct strided){q, width, 1}, w->keys_across, COLUMNS, p, COLUMNS);
    set_product(n, padded, width, (struct strided){dy, q_row, 1}, w->values_across, COLUMNS, ds, COLUMNS);
    for (int64_t i = 0; i < n; i++) {
        float *pi = p + i * COLUMNS, *dsi = ds + i * COLUMNS;
        float shift = logsumexp[i] == -INFINITY ? 0 : logsumexp[i], along = dot(dy + i * q_row, a->y + start + i * q_row, width);
        score(&a->scoring, h, position + i, keys, a->s, a->key_mask ? a->key_mask + w->b * a->s : 0, pi, slope);
#pragma GCC ivdep
        for (int64_t j = 0; j < columns; j++) {
            pi[j] = exponential(pi[j] - shift);
            dsi[j] = (dsi[j] - along) * pi[j]; /* the gradient of the score */
        }
        if (a->dbias) {
            float *dbias = a->dbias + (w->b * a->h + h) * (2 * a->scoring.reach + 1);
            for (int64_t j = 0; j < columns; j++)
                dbias[bias_column(keys.first + j - position - i, a->scoring.reach)] += dsi[j];
        }
        if (a->scoring.cap)
            for (int64_t j = 0; j < columns; j++) dsi[j] *= slope[j]; /* the gradient of the product q k */
    }
    add_product(columns, width, n, (struct strided){p, 1, COLUMNS}, dy, q_row, w->dv, width);
    add_product(columns, width, n, (struct strided){ds, 1, COLUMNS}, q, width, w->dk, width);
    add_product(n, width, columns, (struct strided){ds, COLUMNS, 1}, w->k, a->g * width, a->dq + start, q_row);
}

/* Copy n rows of `width` numbers side by side to rows that are to_row apart. */
static void deliver(const float *from, int64_t n, int64_t width, float *to, int64_t to_row) {
    for (int64_t j = 0; j < n; j++) memcpy(to + j * to_row, from + j * width, width * sizeof *to);
}

/* Set dq of one row and the heads [h, last): to zero at first, in the end what tiles added times the scale. */
static void scale_queries(const struct attention_backward_task *a, int64_t b, int64_t h, int64_t last, float factor) {
    for (int64_t t = 0; t < a->t; t++) {
        float *dq = a->dq + ((b * a->t + t) * a->h + h) * a->width;
        const int64_t n = (last - h) * a->width;
        if (!factor) memset(dq, 0, n * sizeof *dq);
        for (int64_t l = 0; factor && l < n; l++) dq[l] *= factor;
    }
}

static void attention_backward(const void *task, int64_t first, int64_t last) {
    const struct attention_backward_task *a = task;
    const int64_t width = a->width, k_row = a->g * width, shared = a->h / a->g, most = COLUMNS * width;
    float keys_across[most] __attribute__((aligned(64))), values_across[most] __attribute__((aligned(64)));
    float dk[most] __attribute__((aligned(64))), dv[most] __attribute__((aligned(64)));
    for (int64_t unit = first; unit < last; unit++) {
        struct tile w = {.b = unit / a->g, .group = unit % a->g, {0}, 0, keys_across, values_across, dk, dv};
        const int64_t h0 = w.group * shared, h1 = h0 + shared;
        scale_queries(a, w.b, h0, h1, 0);
        for (int64_t j = 0; j < a->s; j += COLUMNS) {
            const int64_t n = smaller(COLUMNS, a->s - j), start = (w.b * a->s + j) * k_row + w.group * width;
            w.keys = (struct range){j, j + n}, w.k = a->k + start;
            transpose(w.k, k_row, n, width, keys_across, COLUMNS);
            transpose(a->v + start, k_row, n, width, values_across, COLUMNS);
            memset(dk, 0, sizeof dk), memset(dv, 0, sizeof dv);
            for (int64_t h = h0; h < h1; h++)
                for (int64_t t = 0; t < a->t; t += STRIP) meet(a, &w, h, t, smaller(STRIP, a->t - t));
            deliver(dk, n, width, a->dk + start, k_row);
            deliver(dv, n, width, a->dv + start, k_row);
        }
        scale_queries(a, w.b, h0, h1, a->scoring.scale);
    }
}

const struct attention_backward_kernels PER_SET(attention_backward_kernels) = {
    .attention_backward = attention_backward,
};
