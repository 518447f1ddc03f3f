/* What attention and its backward know of scores: which keys a query sees, and what becomes of their products. */
#ifndef MINISLM_SCORES_H
#define MINISLM_SCORES_H
#include "functions.h"
#include "product.h"

/* Keys of a tile, and rows of queries that meet them at once: their scores stay in the nearest cache, and so do the keys. */
enum { COLUMNS = 64, STRIP = 16 };

struct scoring {
    const float *bias; /* (H, 2 reach + 1): added to the scores by distance; or null */
    int64_t reach;
    int64_t window; /* keys are seen at most this far away plus one; 0: at any distance */
    int causal;
    float scale, cap; /* cap 0: none */
};

struct range {
    int64_t first, last;
};

/* The keys, of `length`, that the queries at [position, position + n) may see, all taken together. */
static inline struct range visible(const struct scoring *s, int64_t position, int64_t n, int64_t length) {
    struct range keys = {0, length};
    if (s->causal) keys.last = smaller(keys.last, position + n);
    if (s->window) {
        keys.last = smaller(keys.last, position + n - 1 + s->window);
        if (position - s->window + 1 > 0) keys.first = position - s->window + 1;
    }
    return keys;
}

/* Column of a bias that serves a key `ahead` positions after its query. */
static inline int64_t bias_column(int64_t ahead, int64_t reach) {
    return (ahead < -reach ? -reach : ahead > reach ? reach : ahead) + reach;
}

/* s = cap tanh(s / cap) for n products, the derivative in slope. */
static inline void bound(float *s, float *slope, int64_t n, float cap) {
    for (int64_t j = 0; j < n; j++) {
        float t = hyperbolic_tangent(s[j] / cap);
        s[j] = cap * t;
        slope[j] = 1 - t * t;
    }
}

/* Make scores of the scaled products of a query of head h, at `position`, with the keys [first, last) of `length`:
   -inf where it does not see a key. */
static inline void score(const struct scoring *s, int64_t h, int64_t position, struct range keys, int64_t length,
                         const uint8_t *key_mask, float *tile, float *slope) {
    struct range seen = visible(s, position, 1, length);
    int64_t n = keys.last - keys.first;
    if (s->cap) bound(tile, slope, n, s->cap);
    if (s->bias) {
        const float *bias = s->bias + h * (2 * s->reach + 1);
        for (int64_t j = 0; j < n; j++) tile[j] += bias[bias_column(keys.first + j - position, s->reach)];
    }
    for (int64_t j = keys.first; j < smaller(seen.first, keys.last); j++) tile[j - keys.first] = -INFINITY;
    for (int64_t j = keys.last - 1; j >= keys.first && j >= seen.last; j--) tile[j - keys.first] = -INFINITY;
    if (key_mask)
        for (int64_t j = 0; j < n; j++)
            if (!key_mask[keys.first + j]) tile[j] = -INFINITY;
}

/* to (width, to_row) = the transpose of from (n, width), whose rows are `row` apart; columns behind the n are zero up to the
   next multiple of LANES. Whatever takes four bytes may be a number here. */
static inline void transpose(
    const one_in_memory *from, int64_t row, int64_t n, int64_t width, one_in_memory *to, int64_t to_row) {
    int64_t j = 0;
#if LANES == 16
    for (; j + 16 <= n; j += 16) /* four columns of sixteen rows, in registers */
        for (int64_t k = 0; k + 4 <= width; k += 4) {
            const one_in_memory *r = from + j * row + k;
            __m512 of_row[4]; /* rows i, i + 4, i + 8 and i + 12 */
            for (int i = 0; i < 4; i++, r += row) {
                of_row[i] = _mm512_castps128_ps512(_mm_loadu_ps(r));
                of_row[i] = _mm512_insertf32x4(of_row[i], _mm_loadu_ps(r + 4 * row), 1);
                of_row[i] = _mm512_insertf32x4(of_row[i], _mm_loadu_ps(r + 8 * row), 2);
                of_row[i] = _mm512_insertf32x4(of_row[i], _mm_loadu_ps(r + 12 * row), 3);
            }
            const __m512 low = _mm512_unpacklo_ps(of_row[0], of_row[1]), high = _mm512_unpackhi_ps(of_row[0], of_row[1]);
            const __m512 low2 = _mm512_unpacklo_ps(of_row[2], of_row[3]), high2 = _mm512_unpackhi_ps(of_row[2], of_row[3]);
            one_in_memory *t = to + k * to_row + j;
            _mm512_storeu_ps(t, _mm512_shuffle_ps(low, low2, 0x44));
            _mm512_storeu_ps(t + to_row, _mm512_shuffle_ps(low, low2, 0xee));
            _mm512_storeu_ps(t + 2 * to_row, _mm512_shuffle_ps(high, high2, 0x44));
            _mm512_storeu_ps(t + 3 * to_row, _mm512_shuffle_ps(high, high2, 0xee));
        }
    if (width % 4)
        for (int64_t k = width / 4 * 4; k < width; k++)
            for (int64_t i = 0; i < j; i++) to[k * to_row + i] = from[i * row + k];
#endif
    for (; j + 4 <= n; j += 4) { /* four by four */
        const one_in_memory *r = from + j * row;
        int64_t k = 0;
        for (; k + 4 <= width; k += 4) {
            four a = load_four(r + k), b = load_four(r + row + k), c = load_four(r + 2 * row + k), d = load_four(r + 3 * row + k);
            four ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
            four ab_above = __builtin_shufflevector(a, b, 2, 6, 3, 7), cd_above = __builtin_shufflevector(c, d, 2, 6, 3, 7);
            one_in_memory *t = to + k * to_row + j;
            store_four(t, __builtin_shufflevector(ab, cd, 0, 1, 4, 5));
            store_four(t + to_row, __builtin_shufflevector(ab, cd, 2, 3, 6, 7));
            store_four(t + 2 * to_row, __builtin_shufflevector(ab_above, cd_above, 0, 1, 4, 5));
            store_four(t + 3 * to_row, __builtin_shufflevector(ab_above, cd_above, 2, 3, 6, 7));
        }
        for (; k < width; k++)
            for (int i = 0; i < 4; i++) to[k * to_row + j + i] = r[i * row + k];
    }
    for (; j < n; j++)
        for (int64_t k = 0; k < width; k++) to[k * to_row + j] = from[j * row + k];
    for (; j % LANES; j++)
        for (int64_t k = 0; k < width; k++) to[k * to_row + j] = 0;
}

#endif
