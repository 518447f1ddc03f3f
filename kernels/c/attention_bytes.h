/* Gathering over keys and values that are bytes, in whole numbers, as `minislm.ops.packed.attention_packed_int8` defines it.
   Included by attention.c. Queries become bytes, and so do the weights of the values of a tile of keys; what is multiplied
   and summed between the roundings is exact. */
#include "rounding.h"

#define INLINE static inline __attribute__((always_inline))

typedef int32_t lanes_of_ints __attribute__((vector_size(4 * LANES)));
typedef int32_t lanes_of_ints_in_memory __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint8_t lanes_of_bytes __attribute__((vector_size(LANES)));
typedef uint8_t lanes_of_bytes_in_memory __attribute__((vector_size(LANES), aligned(1), may_alias));

/* Keys of a tile; rows whose products with SIDE registers of columns are in registers together. */
enum { BYTE_COLUMNS = 128, BYTE_ROWS = LANES == 16 ? 8 : 4, SIDE = 2 };

/* Unsigned bytes have this more than the codes of queries. */
enum { OFFSET = 128 };

/* What a row's largest score is before it has met a key, and the least scale that the weight of a value is worth: finite, so
   that they may be subtracted, and divided by. */
#define LOWEST (-1e30f)
#define LEAST_SCALE 0x1p-100f
#define LOG2_E 1.44269504f
#define LOG2_255 7.99435344f /* the largest weight of a tile is the byte 255 */

static inline lanes_of_ints load_ints(const int32_t *x) { return *(const lanes_of_ints_in_memory *)x; }

/* A line holds four signed bytes for each lane, to be multiplied by four unsigned ones. */
#if defined __AVX512VNNI__ || defined __AVXVNNI__
typedef lanes_of_ints line;
static inline line load_line(const int32_t *from) { return load_ints(from); }
static inline lanes_of_ints add_products(lanes_of_ints sums, int32_t four, line of) {
#ifdef __AVX512VNNI__
    return (lanes_of_ints)_mm512_dpbusd_epi32((__m512i)sums, _mm512_set1_epi32(four), (__m512i)of);
#else
    return (lanes_of_ints)_mm256_dpbusd_avx_epi32((__m256i)sums, _mm256_set1_epi32(four), (__m256i)of);
#endif
}
#else
#ifdef __SSE2__
#include <emmintrin.h>
#endif
typedef struct { lanes_of_ints even, odd; } line; /* 16 bits for each byte */
static inline line load_line(const int32_t *from) {
    typedef int16_t halves __attribute__((vector_size(4 * LANES)));
    const halves bytes = (halves)load_ints(from);
    return (line){(lanes_of_ints)(bytes << 8 >> 8), (lanes_of_ints)(bytes >> 8)};
}
static inline lanes_of_ints add_products(lanes_of_ints sums, int32_t four, line of) {
    const int32_t even = four & 0x00ff00ff, odd = four >> 8 & 0x00ff00ff;
#if defined __AVX2__
    sums += (lanes_of_ints)_mm256_madd_epi16((__m256i)of.even, _mm256_set1_epi32(even));
    return sums + (lanes_of_ints)_mm256_madd_epi16((__m256i)of.odd, _mm256_set1_epi32(odd));
#elif defined __SSE2__
    sums += (lanes_of_ints)_mm_madd_epi16((__m128i)of.even, _mm_set1_epi32(even));
    return sums + (lanes_of_ints)_mm_madd_epi16((__m128i)of.odd, _mm_set1_epi32(odd));
#else
    sums += (of.even << 16 >> 16) * (even & 0xffff) + (of.even >> 16) * (even >> 16);
    return sums + (of.odd << 16 >> 16) * (odd & 0xffff) + (of.odd >> 16) * (odd >> 16);
#endif
}
#endif

/* Sums of `quads` times four products: rows of unsigned bytes, `stride` apart, with lines, `columns` numbers apart. */
INLINE void sum_products(const uint8_t *bytes, int64_t stride, const int32_t *lines, int64_t columns, int64_t quads,
                          lanes_of_ints sums[BYTE_ROWS][SIDE], const int rows, const int side) {
    for (int64_t l = 0; l < quads; l++, bytes += 4, lines += columns) {
        line of[SIDE];
#pragma GCC unroll 2
        for (int s = 0; s < side; s++) of[s] = load_line(lines + s * LANES);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            int32_t four;
            memcpy(&four, bytes + i * stride, 4);
#pragma GCC unroll 2
            for (int s = 0; s < side; s++) sums[i][s] = add_products(sums[i][s], four, of[s]);
        }
    }
}

/* A tile of keys and values in lines, and what belongs to each key. */
struct byte_tile {
    int32_t *k, *v;          /* (width / 4 rounded up, BYTE_COLUMNS) and (BYTE_COLUMNS / 4, `across`) */
    int64_t across;          /* width rounded up to a register */
    int32_t starts[BYTE_COLUMNS]; /* of sums, so that OFFSET leaves no trace */
    float k_scales[BYTE_COLUMNS];
    float logs[BYTE_COLUMNS], inverses[BYTE_COLUMNS]; /* of the scales of values */
};

/* Bytes of a head that begin with the first of n rows, `row` apart, as rows of whole quads; zeros follow the width. */
static inline const int8_t *whole_quads(const int8_t *from, int64_t *row, int64_t n, int64_t width, int8_t *room) {
    if (width % 4 == 0) return from;
    const int64_t whole = (width + 3) / 4 * 4;
    memset(room, 0, n * whole);
    for (int64_t j = 0; j < n; j++) memcpy(room + j * whole, from + j * *row, width);
    *row = whole;
    return room;
}

/* Put the bytes of four rows side by side, number by number; rows beyond the n are zero. */
static inline void interleave(const int8_t *from, int64_t row, int64_t n, int64_t width, int32_t *to) {
    typedef int8_t sixteen __attribute__((vector_size(16)));
    typedef int16_t eight __attribute__((vector_size(16)));
    typedef sixteen sixteen_in_memory __attribute__((aligned(1), may_alias));
    int64_t k = 0;
    for (; n >= 4 && k + 16 <= width; k += 16) {
        const int8_t *at = from + k;
        const sixteen a = *(const sixteen_in_memory *)at, b = *(const sixteen_in_memory *)(at + row);
        const sixteen c = *(const sixteen_in_memory *)(at + 2 * row), d = *(const sixteen_in_memory *)(at + 3 * row);
#define LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
        const eight ab[] = {(eight)__builtin_shufflevector(a, b, LOW), (eight)__builtin_shufflevector(a, b, HIGH)};
        const eight cd[] = {(eight)__builtin_shufflevector(c, d, LOW), (eight)__builtin_shufflevector(c, d, HIGH)};
#undef LOW
#undef HIGH
        sixteen_in_memory *out = (sixteen_in_memory *)(to + k);
        for (int half = 0; half < 2; half++) {
            out[2 * half] = (sixteen)__builtin_shufflevector(ab[half], cd[half], 0, 8, 1, 9, 2, 10, 3, 11);
            out[2 * half + 1] = (sixteen)__builtin_shufflevector(ab[half], cd[half], 4, 12, 5, 13, 6, 14, 7, 15);
        }
    }
    for (; k < width; k++) {
        uint8_t four[4] = {0};
        for (int64_t j = 0; j < smaller(n, 4); j++) four[j] = (uint8_t)from[j * row + k];
        memcpy(to + k, four, 4);
    }
}

/* Lay the keys [first, first + n) of a group out. */
static inline void open_tile(struct byte_tile *tile, const struct attention_task *a, int64_t first, int64_t n) {
    const int64_t width = a->width, quads = (width + 3) / 4, at = first * width;
    int8_t room[BYTE_COLUMNS * 4 * quads];
    int64_t row = a->g * width;
    const int8_t *k = whole_quads((const int8_t *)a->k.rows + at, &row, n, width, room);
    if (n < BYTE_COLUMNS) memset(tile->k, 0, quads * BYTE_COLUMNS * sizeof *tile->k);
    transpose((const one_in_memory *)k, row / 4, n, quads, (one_in_memory *)tile->k, BYTE_COLUMNS);
    for (int64_t j = 0; j < BYTE_COLUMNS; j += LANES) {
        lanes_of_ints sum = {0};
        for (int64_t l = 0; l < quads; l++) sum = add_products(sum, 0x01010101, load_line(tile->k + l * BYTE_COLUMNS + j));
        *(lanes_of_ints_in_memory *)(tile->starts + j) = -OFFSET * sum;
    }
    for (int64_t j = 0; j < n; j += 4)
        interleave((const int8_t *)a->v.rows + at + j * a->g * width, a->g * width, n - j, width, tile->v + j / 4 * tile->across);
    for (int64_t j = n; j < BYTE_COLUMNS; j++) tile->k_scales[j] = tile->logs[j] = 0;
    for (int64_t j = 0; j < n; j++) tile->k_scales[j] = a->k.scales[first + j * a->g];
    for (int64_t j = 0; j < n; j++) tile->logs[j] = a->v.scales[first + j * a->g];
    for (int64_t j = 0; j < BYTE_COLUMNS; j += LANES) {
        const lanes scales = larger_lanes(all(LEAST_SCALE), load(tile->logs + j)), inverses = all(1) / scales;
        store(tile->logs + j, logarithm_lanes(scales));
        store(tile->inverses + j, larger_lanes(inverses, all(0))); /* 0 for what is not a number: what is hidden has 0 of it */
    }
}

/* Scaled products of rows of queries with the first `columns` keys of a tile, and what is added to those of each key. */
INLINE void score_bytes(const struct byte_tile *tile, const uint8_t *q, const float *q_scales, int64_t quads, int64_t columns,
                        const float *added, float *scores, const int rows) {
    for (int64_t j = 0; j < columns; j += SIDE * LANES) {
        lanes_of_ints sums[BYTE_ROWS][SIDE];
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
            for (int s = 0; s < SIDE; s++) sums[i][s] = load_ints(tile->starts + j + s * LANES);
        sum_products(q, 4 * quads, tile->k + j, BYTE_COLUMNS, quads, sums, rows, SIDE);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
            for (int s = 0; s < SIDE; s++) {
                const lanes products = __builtin_convertvector(sums[i][s], lanes) * load(tile->k_scales + j + s * LANES);
                store(scores + i * BYTE_COLUMNS + j + s * LANES, products * q_scales[i] + load(added + j + s * LANES));
            }
    }
}

/* 2^x to about 3e-6 for x up to 8, and 0 for what would be a denormal number, or nearly so. */
static inline lanes power_lanes(lanes x) {
#ifdef __AVX512DQ__
    const lanes r = (lanes)_mm512_reduce_ps((__m512)x, 1); /* x - floor(x) */
#else
    const lanes round_to_whole = all(12582912);
    const lanes_of_bits nothing = x < all(-126);
    x = larger_lanes(all(-126), x);
    const lanes n = (x - 0.5f + round_to_whole) - round_to_whole, r = x - n;
#endif
    lanes p = all(0.013534168f); /* fitted from 0 to 1 */
    p = p * r + 0.05201146f;
    p = p * r + 0.24144275f;
    p = p * r + 0.69300383f;
    p = p * r + 1.0000026f;
#ifdef __AVX512DQ__
    return (lanes)_mm512_scalef_ps((__m512)p, (__m512)x); /* p 2^floor(x) */
#else
    p *= (lanes)((__builtin_convertvector(n, lanes_of_bits) + 127) << 23);
    return (lanes)((lanes_of_bits)p & ~nothing);
#endif
}

/* The largest of a row's scores. */
INLINE float top_of(const float *scores, const int registers) {
    lanes most = all(LOWEST);
#pragma GCC unroll 16
    for (int j = 0; j < registers; j++) most = larger_lanes(load(scores + j * LANES), most);
    return largest_lane(most, LOWEST);
}

/* Turn a row's scores into the weights of values, as bytes, of which the largest is 255; return what they are worth in all. */
INLINE lanes weigh_bytes(const struct byte_tile *tile, const float *scores, float top, uint8_t *bytes, const int registers) {
    const float shift = top * LOG2_E - LOG2_255;
    lanes sum = all(0);
#pragma GCC unroll 16
    for (int j = 0; j < registers; j++) {
        const lanes weight = power_lanes(load(scores + j * LANES) * LOG2_E - shift);
        sum += weight * load(tile->inverses + j * LANES);
        const lanes_of_ints rounded = (lanes_of_ints)(weight + 12582912); /* the last byte of a number of this size */
#ifdef __AVX512F__
        _mm_storeu_si128((__m128i *)(bytes + j * LANES), _mm512_cvtepi32_epi8((__m512i)rounded));
#else
        *(lanes_of_bytes_in_memory *)(bytes + j * LANES) = __builtin_convertvector(rounded & 255, lanes_of_bytes);
#endif
    }
    return sum;
}

/* y = y * shrink + the values of `quads` times four keys, weighed, times a share: `side` registers of columns. */
INLINE void mix_columns(const struct byte_tile *tile, int64_t column, const uint8_t *bytes, int64_t quads, const float *shrinks,
                         const float *shares, float *y, int64_t y_row, const int rows, const int side) {
    lanes_of_ints sums[BYTE_ROWS][SIDE] = {0};
    sum_products(bytes, BYTE_COLUMNS, tile->v + column, tile->across, quads, sums, rows, side);
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int s = 0; s < side; s++) {
            float *to = y + i * y_row + s * LANES;
            store(to, load(to) * shrinks[i] + __builtin_convertvector(sums[i][s], lanes) * shares[i]);
        }
}

INLINE void mix_bytes(const struct byte_tile *tile, const uint8_t *bytes, int64_t quads, const float *shrinks, const float *shares,
                       float *y, int64_t width, const int rows) {
    int64_t d = 0;
    for (; d + SIDE * LANES <= width; d += SIDE * LANES)
        mix_columns(tile, d, bytes, quads, shrinks, shares, y + d, width, rows, SIDE);
    for (; d + LANES <= width; d += LANES) mix_columns(tile, d, bytes, quads, shrinks, shares, y + d, width, rows, 1);
    if (d == width) return;
    float rest[BYTE_ROWS * LANES] = {0};
    for (int i = 0; i < rows; i++) memcpy(rest + i * LANES, y + i * width + d, (width - d) * sizeof *y);
    mix_columns(tile, d, bytes, quads, shrinks, shares, rest, LANES, rows, 1);
    for (int i = 0; i < rows; i++) memcpy(y + i * width + d, rest + i * LANES, (width - d) * sizeof *y);
}

/* Rows of queries as bytes. */
struct byte_rows {
    uint8_t *codes; /* (rows, width rounded up to 4), OFFSET more than they are */
    float scales[MOST_ROWS];
};

/* Whether the queries of some tokens see the same n keys, and nothing is done to their scores. */
static inline int sees_all(const struct scoring *s, int64_t position, int64_t tokens, int64_t first, int64_t n, int64_t length) {
    const struct range near = visible(s, position, 1, length), far = visible(s, position + tokens - 1, 1, length);
    return !s->bias && !s->cap && near.last >= first + n && far.last >= first + n && far.first <= first;
}

/* Add to rows what they see of a tile, by their scores; one after the other, so that none waits for another. */
INLINE void add_values(const struct byte_tile *tile, const float *scores, int64_t n, int64_t i, struct gathered *got, int64_t width,
                       const int rows, const int registers) {
    enum { ROOM = 16 }; /* a register, or some */
    uint8_t bytes[BYTE_ROWS * BYTE_COLUMNS];
    float tops[ROOM] = {0}, before[ROOM] = {0}, shrinks[ROOM], shares[ROOM];
    for (int r = 0; r < rows; r++) tops[r] = top_of(scores + r * BYTE_COLUMNS, registers), before[r] = got->top[i + r];
    for (int r = 0; r < ROOM; r += LANES) {
        const lanes top = larger_lanes(load(tops + r), load(before + r));
        store(shrinks + r, exponential_lanes(load(before + r) - top));
        store(shares + r, exponential_lanes(load(tops + r) - top));
    }
    for (int r = 0; r < rows; r++) {
        const lanes total = weigh_bytes(tile, scores + r * BYTE_COLUMNS, tops[r], bytes + r * BYTE_COLUMNS, registers);
        got->total[i + r] = got->total[i + r] * shrinks[r] + total * shares[r];
        got->top[i + r] = tops[r] > before[r] ? tops[r] : before[r];
    }
    mix_bytes(tile, bytes, (n + 3) / 4, shrinks, shares, got->y + i * width, width, rows);
}

/* Let `rows` rows from row i on meet the first n keys of a tile, of which none meets more. */
INLINE void gather_rows(const struct attention_task *a, const struct queries *u, const struct byte_rows *q,
                        const struct byte_tile *tile, int64_t first, int64_t n, int64_t i, struct gathered *got, const int rows) {
    static const float nothing[BYTE_COLUMNS];
    const int64_t width = a->width, quads = (width + 3) / 4, registers = (n + LANES - 1) / LANES;
    const int64_t position = u->position + i / u->team, tokens = (i % u->team + rows - 1) / u->team + 1;
    const int whole = n == BYTE_COLUMNS && sees_all(&a->scoring, position, tokens, first, n, a->lengths[u->b]);
    float scores[BYTE_ROWS * BYTE_COLUMNS], unused[BYTE_COLUMNS];
    score_bytes(tile, q->codes + i * 4 * quads, q->scales + i, quads, n, whole ? tile->logs : nothing, scores, rows);
    if (whole) {
        add_values(tile, scores, BYTE_COLUMNS, i, got, width, rows, BYTE_COLUMNS / LANES);
        return;
    }
    for (int64_t r = 0, head = i % u->team, token = position; r < rows; r++) {
        float *row = scores + r * BYTE_COLUMNS;
        score(&a->scoring, u->head + head, token, (struct range){first, first + n}, a->lengths[u->b], 0, row, unused);
        for (int64_t j = 0; j < n; j++) row[j] = row[j] == -INFINITY ? row[j] : row[j] + tile->logs[j];
        for (int64_t j = n; j < registers * LANES; j++) row[j] = -INFINITY;
        if (++head == u->team) head = 0, token++;
    }
    add_values(tile, scores, n, i, got, width, rows, registers);
}

/* Ask for keys and values, `from` to before `to` as counted from one of them, before they are needed. */
static inline void fetch(const struct attention_task *a, int64_t first, int64_t from, int64_t to) {
    const int64_t row = a->g * a->width, at = first * a->width;
    for (int64_t j = from; j < to; j++)
        for (int64_t l = 0; l < a->width; l += 64) {
            __builtin_prefetch((const int8_t *)a->k.rows + at + j * row + l);
            __builtin_prefetch((const int8_t *)a->v.rows + at + j * row + l);
        }
}

/* The same as `gather`. `room` is for the lines of keys and values. */
static void gather_bytes(const struct attention_task *a, const struct queries *u, const struct byte_rows *q, struct range keys,
                         int32_t *room, struct gathered *got) {
    const int64_t rows = u->tokens * u->team, quads = (a->width + 3) / 4;
    struct byte_tile tile = {.k = room, .v = room + quads * BYTE_COLUMNS, .across = (a->width + LANES - 1) / LANES * LANES};
    const int64_t first = (a->firsts[u->b] + keys.first) * a->g + u->group;
    const int64_t more = smaller(BYTE_COLUMNS, a->lengths[u->b] - keys.last); /* keys of the next tile, which come meanwhile */
    open_tile(&tile, a, first, keys.last - keys.first);
    int64_t i = 0;
#define ROWS(some)                                                                                                          \
    for (; i + some <= rows; i += some) { /* none of which meets many keys in vain */                                       \
        fetch(a, first + BYTE_COLUMNS * a->g, more * i / rows, more * (i + some) / rows);                                        \
        const int64_t token = i / u->team, tokens = (i + some - 1) / u->team + 1 - token;                                   \
        const struct range seen = visible(&a->scoring, u->position + token, tokens, keys.last);                             \
        if (seen.last > keys.first && seen.first < keys.last)                                                               \
            gather_rows(a, u, q, &tile, keys.first, seen.last - keys.first, i, got, some);                                  \
    }
    ROWS(BYTE_ROWS)
    if (BYTE_ROWS > 4) ROWS(4)
    ROWS(1)
#undef ROWS
}

/* Round the scaled queries of a unit. */
static void round_queries(const struct attention_task *a, const float *q, int64_t rows, struct byte_rows *to) {
    const int64_t width = a->width, whole = (width + 3) / 4 * 4;
    uint8_t *codes = to->codes;
    for (int64_t i = 0; i < rows; i++) {
        to->scales[i] = round_group(q + i * width, width, -1, (int8_t *)codes + i * whole);
        memset(codes + i * whole + width, 0, whole - width);
    }
    for (int64_t l = 0; l < rows * whole; l++) codes[l] ^= OFFSET; /* as adding it; what follows a width meets zeros */
}
