/* Attention by tiles of ROWS queries and COLUMNS keys, whose scores never leave the nearest cache. A tile that lies wholly in
   the future, or outside the window, is passed over.

   Forward (Milakov and Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135): each query keeps the largest
   score so far, the sum of the exponentials relative to it, and the values weighted by them; when a larger score comes, the
   latter two are scaled down. Backward: the probabilities again, from the sums that the forward stored.

   Each unit first lays its keys and values out for itself: side by side, because rows that are some power of two apart would
   fight for the same places of the cache; and transposed, so that one register holds the scores of neighbouring keys. */
#include "attention.h"
#include "functions.h"
#include "product.h"

enum { ROWS = 16, COLUMNS = 64 };

struct range {
    int64_t first, last;
};

/* The keys [first, last) that the queries [t, t + n) of row b may see, all taken together. */
static struct range visible(const struct attention_task *a, int64_t b, int64_t t, int64_t n) {
    int64_t position = t + (a->starts ? a->starts[b] : 0);
    struct range keys = {0, a->s};
    if (a->causal) keys.last = smaller(keys.last, position + n);
    if (a->window) {
        keys.last = smaller(keys.last, position + n - 1 + a->window);
        if (position - a->window + 1 > 0) keys.first = position - a->window + 1;
    }
    return keys;
}

/* Copy s rows of `width` numbers, the rows being from_row and to_row apart. */
static void copy_rows(const float *from, int64_t from_row, int64_t s, int64_t width, float *to, int64_t to_row) {
    for (int64_t j = 0; j < s; j++) memcpy(to + j * to_row, from + j * from_row, width * sizeof *to);
}

/* to (width, PADDED_KEYS(s)) = the transpose of from (s, width), whose rows are `row` apart; the padding is zero. */
static __attribute__((noinline)) void transpose(const float *from, int64_t row, int64_t s, int64_t width, float *to) {
    int64_t padded = PADDED_KEYS(s);
    for (int64_t k = 0; k < width; k++) {
        for (int64_t j = 0; j < s; j++) to[k * padded + j] = from[j * row + k];
        for (int64_t j = s; j < padded; j++) to[k * padded + j] = 0;
    }
}

/* tile (n, COLUMNS) = from (n, width; rows `row` apart) times columns [first, last) of the transposed keys or values. */
static void score(const float *from, int64_t row, int64_t n, const float *transposed, int64_t s, int64_t width,
                  struct range keys, float *tile) {
    int64_t padded = PADDED_KEYS(s), columns = smaller((keys.last - keys.first + 15) / 16 * 16, padded - keys.first);
    memset(tile, 0, n * COLUMNS * sizeof *tile);
    add_product(n, columns, width, (struct strided){from, row, 1}, transposed + keys.first, padded, tile, COLUMNS);
}

/* Column of a bias that serves a key `ahead` positions after its query. */
static inline int64_t column(int64_t ahead, int64_t reach) {
    return (ahead < -reach ? -reach : ahead > reach ? reach : ahead) + reach;
}

/* s = cap tanh(s / cap) for n scores, the derivative in slope. */
static void bound(float *s, float *slope, int64_t n, float cap) {
    for (int64_t j = 0; j < n; j++) {
        float t = hyperbolic_tangent(s[j] / cap);
        s[j] = cap * t;
        slope[j] = 1 - t * t;
    }
}

/* Add one head's biases to n scores, the first of a key `ahead` positions after the query. */
static void add_biases(float *s, int64_t n, const float *bias, int64_t ahead, int64_t reach) {
    for (int64_t j = 0; j < n; j++) s[j] += bias[column(ahead + j, reach)];
}

/* Make one query's scores of the keys [first, last) out of its products with them, -inf where it does not see a key. */
static void mask(const struct attention_task *a, int64_t b, int64_t h, int64_t t, struct range keys, float *tile,
                 float *slope) {
    struct range seen = visible(a, b, t, 1);
    int64_t n = keys.last - keys.first, ahead = keys.first - t - (a->starts ? a->starts[b] : 0);
    for (int64_t j = 0; j < n; j++) tile[j] *= a->scale;
    if (a->cap) bound(tile, slope, n, a->cap);
    if (a->bias) add_biases(tile, n, a->bias + h * (2 * a->reach + 1), ahead, a->reach);
    for (int64_t j = keys.first; j < smaller(seen.first, keys.last); j++) tile[j - keys.first] = -INFINITY;
    for (int64_t j = keys.last - 1; j >= keys.first && j >= seen.last; j--) tile[j - keys.first] = -INFINITY;
    if (a->key_mask)
        for (int64_t j = keys.first; j < keys.last; j++)
            if (!a->key_mask[b * a->s + j]) tile[j - keys.first] = -INFINITY;
}

static void attention(const void *task, int64_t first, int64_t last) {
    const struct attention_task *a = task;
    const int64_t width = a->width, q_row = a->h * width, k_row = a->g * width;
    for (int64_t unit = first; unit < last; unit++) {
        int64_t b = unit / a->h, h = unit % a->h, g = h / (a->h / a->g);
        const float *k = a->k + b * a->s * k_row + g * width, *v = a->v + b * a->s * k_row + g * width;
        const int64_t size = width * PADDED_KEYS(a->s);
        float *keys_across = a->scratch + unit * 2 * size, *values = keys_across + size;
        float tile[ROWS * COLUMNS], top[ROWS], total[ROWS], unused[COLUMNS];
        transpose(k, k_row, a->s, width, keys_across);
        copy_rows(v, k_row, a->s, width, values, width);
        for (int64_t t = 0; t < a->t; t += ROWS) {
            int64_t n = smaller(ROWS, a->t - t);
            const float *q = a->q + (b * a->t + t) * q_row + h * width;
            float *y = a->result + (b * a->t + t) * q_row + h * width;
            for (int64_t i = 0; i < n; i++) {
                memset(y + i * q_row, 0, width * sizeof *y);
                top[i] = -INFINITY, total[i] = 0;
            }
            struct range seen = visible(a, b, t, n);
            for (struct range keys = seen; keys.first < seen.last; keys.first += COLUMNS) {
                keys.last = smaller(keys.first + COLUMNS, seen.last);
                int64_t columns = keys.last - keys.first;
                score(q, q_row, n, keys_across, a->s, width, keys, tile);
                for (int64_t i = 0; i < n; i++) {
                    float *p = tile + i * COLUMNS;
                    mask(a, b, h, t + i, keys, p, unused);
                    float highest = largest(p, columns);
                    if (highest < top[i]) highest = top[i];
                    float shift = highest == -INFINITY ? 0 : highest, shrink = exponential(top[i] - shift);
                    total[i] = total[i] * shrink + exponentials(p, shift, p, columns);
                    top[i] = highest;
                    for (int64_t l = 0; l < width; l++) y[i * q_row + l] *= shrink;
                }
                add_product(n, width, columns, (struct strided){tile, COLUMNS, 1}, values + keys.first * width, width, y, q_row);
            }
            for (int64_t i = 0; i < n; i++) {
                float share = total[i] == 0 ? 1 : 1 / total[i];
                for (int64_t l = 0; l < width; l++) y[i * q_row + l] *= share;
                a->logsumexp[(b * a->h + h) * a->t + t + i] = logf(total[i]) + (total[i] == 0 ? 0 : top[i]);
            }
        }
    }
}

/* What a unit of the backward works on: its keys and values, and their gradients, (S, width) or transposed. */
struct unit {
    float *keys, *keys_across, *values_across, *dk, *dv;
};

/* Queries [t, t + n) of head h of row b: add to the unit's dk and dv, and set dq. */
static void attention_backward_rows(const struct attention_task *a, int64_t b, int64_t h, int64_t t, int64_t n,
                                    struct unit u) {
    const int64_t width = a->width, q_row = a->h * width, start = (b * a->t + t) * q_row + h * width;
    const float *q = a->q + start, *dy = a->dy + start, *logsumexp = a->logsumexp + (b * a->h + h) * a->t + t;
    float *dq = a->dq + start, p[ROWS * COLUMNS], ds[ROWS * COLUMNS], along[ROWS], slope[COLUMNS];
    const int64_t position = t + (a->starts ? a->starts[b] : 0);
    for (int64_t i = 0; i < n; i++) {
        memset(dq + i * q_row, 0, width * sizeof *dq);
        along[i] = dot(dy + i * q_row, a->y + start + i * q_row, width);
    }
    struct range seen = visible(a, b, t, n);
    for (struct range keys = seen; keys.first < seen.last; keys.first += COLUMNS) {
        keys.last = smaller(keys.first + COLUMNS, seen.last);
        int64_t columns = keys.last - keys.first, skip = keys.first * width;
        score(q, q_row, n, u.keys_across, a->s, width, keys, p);
        score(dy, q_row, n, u.values_across, a->s, width, keys, ds);
        for (int64_t i = 0; i < n; i++) {
            float *pi = p + i * COLUMNS, *dsi = ds + i * COLUMNS;
            mask(a, b, h, t + i, keys, pi, slope);
            float shift = logsumexp[i] == -INFINITY ? 0 : logsumexp[i];
#pragma GCC ivdep
            for (int64_t j = 0; j < columns; j++) {
                pi[j] = exponential(pi[j] - shift);
                dsi[j] = (dsi[j] - along[i]) * pi[j]; /* the gradient of the score */
            }
            if (a->dbias) {
                float *dbias = a->dbias + (b * a->h + h) * (2 * a->reach + 1);
                for (int64_t j = 0; j < columns; j++) dbias[column(keys.first + j - position - i, a->reach)] += dsi[j];
            }
            if (a->cap)
                for (int64_t j = 0; j < columns; j++) dsi[j] *= slope[j];
            for (int64_t j = 0; j < columns; j++) dsi[j] *= a->scale; /* the gradient of the product q k */
        }
        add_product(columns, width, n, (struct strided){p, 1, COLUMNS}, dy, q_row, u.dv + skip, width);
        add_product(columns, width, n, (struct strided){ds, 1, COLUMNS}, q, q_row, u.dk + skip, width);
        add_product(n, width, columns, (struct strided){ds, COLUMNS, 1}, u.keys + skip, width, dq, q_row);
    }
}

static void attention_backward(const void *task, int64_t first, int64_t last) {
    const struct attention_task *a = task;
    const int64_t width = a->width, k_row = a->g * width, shared = a->h / a->g, size = width * PADDED_KEYS(a->s);
    for (int64_t unit = first; unit < last; unit++) {
        int64_t b = unit / a->g, g = unit % a->g, start = b * a->s * k_row + g * width;
        float *own = a->scratch + unit * 5 * size;
        struct unit u = {own, own + size, own + 2 * size, own + 3 * size, own + 4 * size};
        copy_rows(a->k + start, k_row, a->s, width, u.keys, width);
        transpose(a->k + start, k_row, a->s, width, u.keys_across);
        transpose(a->v + start, k_row, a->s, width, u.values_across);
        memset(u.dk, 0, 2 * size * sizeof *u.dk); /* and dv */
        for (int64_t h = g * shared; h < (g + 1) * shared; h++)
            for (int64_t t = 0; t < a->t; t += ROWS)
                attention_backward_rows(a, b, h, t, smaller(ROWS, a->t - t), u);
        copy_rows(u.dk, width, a->s, width, a->dk + start, k_row);
        copy_rows(u.dv, width, a->s, width, a->dv + start, k_row);
    }
}

/* Keys lie in memory position by position, each with all its heads: the heads of a unit are done side by side, so that they
   are read in that order; and so are all query heads that share a key head, so that each key is read once. */
static void attention_one(const void *task, int64_t first, int64_t last) {
    const struct attention_one_task *a = task;
    const int64_t width = a->width, row = a->g * width, shared = a->h / a->g, parts = (a->g - 1) / a->together + 1;
    for (int64_t unit = first; unit < last; unit++) {
        int64_t b = unit / parts, g0 = unit % parts * a->together, g1 = smaller(g0 + a->together, a->g);
        int64_t length = a->lengths[b], from = a->window && length > a->window ? length - a->window : 0;
        const float *q = a->q + b * a->h * width, *k = a->k + a->slots[b] * a->s * row, *v = a->v + a->slots[b] * a->s * row;
        float *y = a->y + b * a->h * width, *scores = a->scratch + b * a->h * a->s;
        for (int64_t j = from; j < length; j++)
            for (int64_t h = g0 * shared; h < g1 * shared; h++)
                scores[h * a->s + j] = dot(q + h * width, k + j * row + h / shared * width, width) * a->scale;
        for (int64_t h = g0 * shared; h < g1 * shared; h++) {
            float *p = scores + h * a->s + from;
            if (a->cap)
                for (int64_t j = 0; j < length - from; j++) p[j] = a->cap * hyperbolic_tangent(p[j] / a->cap);
            if (a->bias) add_biases(p, length - from, a->bias + h * (2 * a->reach + 1), from - length + 1, a->reach);
            float top = largest(p, length - from), total = exponentials(p, top == -INFINITY ? 0 : top, p, length - from);
            float share = total == 0 ? 1 : 1 / total;
            for (int64_t j = 0; j < length - from; j++) p[j] *= share;
        }
        memset(y + g0 * shared * width, 0, (g1 - g0) * shared * width * sizeof *y);
        for (int64_t j = from; j < length; j += COLUMNS)
            for (int64_t g = g0; g < g1; g++) {
                struct strided p = {scores + g * shared * a->s + j, a->s, 1};
                const float *values = v + j * row + g * width;
                add_product(shared, width, smaller(COLUMNS, length - j), p, values, row, y + g * shared * width, width);
            }
    }
}

const struct attention_kernels PER_SET(attention_kernels) = {
    .attention = attention,
    .attention_backward = attention_backward,
    .attention_one = attention_one,
};
