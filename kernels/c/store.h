/* Rows of keys or values as a cache stores them: as floats, as half-precision floats, or as bytes with a scale for each head. */
#ifndef MINISLM_STORE_H
#define MINISLM_STORE_H
#include "functions.h"

enum stored { STORED_FLOAT, STORED_HALF, STORED_BYTES };

struct store {
    void *rows;    /* (R, G, K) */
    float *scales; /* (R, G), of bytes; else null */
    enum stored dtype;
};

/* One head of n rows as floats: the first number of the first row is number `start` of the store, and rows
   are `row` numbers apart, as they are in the result if it is the store itself; else they are copied to `room`, side by side. */
static inline const float *widened_rows(const struct store *s, int64_t start, int64_t n, int64_t *row, int64_t width, float *room) {
    const int64_t step = *row;
    if (s->dtype == STORED_FLOAT) return (const float *)s->rows + start;
    *row = width;
    for (int64_t j = 0; j < n; j++) {
        float *to = room + j * width;
        const uint16_t *from = (const uint16_t *)s->rows + start + j * step;
        int64_t l = 0;
#ifdef __AVX512F__
        for (; l + LANES <= width; l += LANES)
            _mm512_storeu_ps(to + l, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(from + l))));
#elif defined __F16C__
        for (; l + LANES <= width; l += LANES)
            _mm256_storeu_ps(to + l, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + l))));
#endif
        for (; l < width; l++) to[l] = widened(from[l]);
    }
    return room;
}

struct store_task {
    const float *x;      /* (N, G, K) */
    const int64_t *rows; /* (N,): where each row of x goes; or null: to the same place */
    struct store to;
    int64_t g, width;
};

struct store_kernels {
    kernel *store_rows; /* units: rows of x */
};
FAMILY(store_kernels)
#endif
