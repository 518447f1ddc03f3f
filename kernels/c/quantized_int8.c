#include "quantized_int8.h"

/* ---- rounding activations to signed bytes ---- */

/* Round n numbers as the op does, by a given scale or, if that is below 0, by their own; return it. */
static float round_group(const float *x, int64_t n, float given, int8_t *codes) {
    uint32_t largest = 0; /* magnitudes compare as their bits do, read as whole numbers: infinity and NaN come last */
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, 4);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    const int finite = largest < 0x7f800000;
    const float steps = given < 0 ? 127 : 1;
    float size = given;
    if (given < 0) memcpy(&size, &largest, 4);
    const float inverse = steps / size;
    if (size >= 0x1p-120f && finite)
        for (int64_t i = 0; i < n; i++) {
            float code = rintf(x[i] * inverse);
            code = code > 127 ? 127 : code;
            code = code < -127 ? -127 : code;
            codes[i] = (int8_t)(int32_t)code;
        }
    else
        for (int64_t i = 0; i < n; i++) codes[i] = 0;
    return !finite ? NAN : size >= 0x1p-120f ? size / steps : 0;
}

static void round_rows(const void *task, int64_t first, int64_t last) {
    const struct rounding_task *t = task;
    for (int64_t n = first; n < last; n++) {
        int8_t *codes = t->codes + n * t->stride;
        for (int64_t j = 0; j < t->groups; j++) {
            const int64_t i = j * t->group;
            const float scale = round_group(
                t->x + n * t->inputs + i, smaller(t->group, t->inputs - i), t->given, codes + i);
            for (int64_t k = 0; k < t->copies; k++) t->scales[n * t->row_scales + j * t->copies + k] = scale;
        }
        memset(codes + t->inputs, 0, t->stride - t->inputs);
        for (int64_t k = 0; k < t->spans; k++) {
            int32_t sum = 0;
            for (int64_t i = k * t->span, end = smaller(i + t->span, t->stride); i < end; i++) sum += codes[i];
            t->sums[n * t->spans + k] = sum;
        }
    }
}

/* ---- exact sums of products of bytes ---- */

enum { BLOCKS = PADDING / BLOCK };
typedef int32_t eight_ints __attribute__((vector_size(4 * BLOCKS)));
typedef float eight_floats __attribute__((vector_size(4 * BLOCKS)));
typedef eight_ints eight_ints_in_memory __attribute__((aligned(4), may_alias));
typedef eight_floats eight_floats_in_memory __attribute__((aligned(4), may_alias));

#ifdef __AVX512VNNI__

static inline __m512i bytes(const void *at) { return _mm512_loadu_si512(at); }

/* Add lanes 0 and 2, 1 and 3 of each quarter: the first step of a sum over lanes, for two vectors at a time. */
static inline __m512i pairs(__m512i a, __m512i b) {
    return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}

/* Sums of the lanes of each quarter: quarter q of the result holds those of a, b, c and d. */
static inline __m512i quarters(__m512i a, __m512i b, __m512i c, __m512i d) {
    const __m512i ab = pairs(a, b), cd = pairs(c, d);
    return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

/* sums[k] = sum over n bytes, n a multiple of PADDING, of the codes of run k times x. */
static inline void dots(const struct run *runs, const int8_t *x, int64_t n, int32_t *sums) {
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
    for (int64_t i = 0; i < n; i += 64) {
        const __m512i v = bytes(x + i);
        a = _mm512_dpbusd_epi32(a, bytes(runs[0].codes + i), v);
        b = _mm512_dpbusd_epi32(b, bytes(runs[1].codes + i), v);
        c = _mm512_dpbusd_epi32(c, bytes(runs[2].codes + i), v);
        d = _mm512_dpbusd_epi32(d, bytes(runs[3].codes + i), v);
    }
    const __m512i q = quarters(a, b, c, d);
    const __m256i h = _mm256_add_epi32(_mm512_castsi512_si256(q), _mm512_extracti64x4_epi64(q, 1));
    _mm_storeu_si128((__m128i *)sums, _mm_add_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1)));
}

/* Lane k of sums = sum over the BLOCK bytes of block k, of the 8 blocks in PADDING bytes. */
static inline void block_dots(const uint8_t *codes, const int8_t *x, eight_ints *sums) {
    const __m512i zero = _mm512_setzero_si512();
    const __m512i a = _mm512_dpbusd_epi32(zero, bytes(codes), bytes(x));
    const __m512i b = _mm512_dpbusd_epi32(zero, bytes(codes + 64), bytes(x + 64));
    const __m512i c = _mm512_dpbusd_epi32(zero, bytes(codes + 128), bytes(x + 128));
    const __m512i d = _mm512_dpbusd_epi32(zero, bytes(codes + 192), bytes(x + 192));
    const __m512i q = quarters(a, b, c, d); /* a block is half a vector: quarters 0 and 1, or 2 and 3 */
    const __m512i h = _mm512_add_epi32(q, _mm512_shuffle_i64x2(q, q, 0xb1));
    const __m512i order = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 11, 3, 10, 2, 9, 1, 8, 0);
    *sums = (eight_ints)_mm512_castsi512_si256(_mm512_permutexvar_epi32(order, h));
}

#else

static inline int32_t one_dot(const uint8_t *codes, const int8_t *x, int64_t n) {
    int32_t sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (int16_t)codes[i] * (int16_t)x[i];
    return sum;
}

static inline void dots(const struct run *runs, const int8_t *x, int64_t n, int32_t *sums) {
    for (int k = 0; k < UNIT; k++) sums[k] = one_dot(runs[k].codes, x, n);
}

static inline void block_dots(const uint8_t *codes, const int8_t *x, eight_ints *sums) {
    for (int k = 0; k < BLOCKS; k++) (*sums)[k] = one_dot(codes + k * BLOCK, x + k * BLOCK, BLOCK);
}

#endif

/* ---- products ---- */

/* Open the same run of the rows of a unit; beyond the last row, of that one again. Returns its length, padded. */
static int64_t open_runs(struct run *runs, const struct int8_task *t, int64_t unit, int64_t start) {
    const int64_t end = smaller(start + RUN, t->w.inputs);
    const int64_t bytes = (end - start) * t->w.bits / 8;
    for (int k = 0; k < UNIT; k++) {
        const int64_t o = smaller(unit * UNIT + k, t->outputs - 1);
        const uint8_t *next = t->w.codes + (o + UNIT) * t->w.row_bytes + start / 8 * t->w.bits;
        for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(next + i); /* the same run of the next unit */
        open_run(&runs[k], &t->w, o, start, end, NO_BITS);
    }
    return (runs->last - runs->first + PADDING - 1) / PADDING * PADDING;
}

/* One scale for each row of the matrix and of x: the whole sum is of whole numbers. */
static void whole_unit(const struct int8_task *t, int64_t unit, int64_t first, int64_t last, struct run *runs) {
    int64_t totals[NEAR][UNIT] = {0};
    for (int64_t start = 0; start < t->w.inputs; start += RUN) {
        const int64_t n_codes = open_runs(runs, t, unit, start);
        for (int64_t n = first; n < last; n++) {
            int32_t sums[UNIT];
            dots(runs, t->x + n * t->stride + start, n_codes, sums);
            for (int k = 0; k < UNIT; k++)
                totals[n - first][k] += sums[k] - runs[k].zeros[0] * t->x_sums[n * t->x_spans + start / RUN];
        }
    }
    for (int64_t o = unit * UNIT; o < smaller(unit * UNIT + UNIT, t->outputs); o++)
        for (int64_t n = first; n < last; n++)
            t->y[n * t->outputs + o] = totals[n - first][o % UNIT] * (t->x_scales[n] * runs[o % UNIT].scales[0]);
}

/* Scales for groups: every block's sum is of whole numbers, and the blocks add up in RUN_BLOCKS running float sums. */
static void grouped_unit(const struct int8_task *t, int64_t unit, int64_t first, int64_t last, struct run *runs) {
    eight_floats totals[NEAR][UNIT][RUN / PADDING] = {0};
    for (int64_t start = 0; start < t->w.inputs; start += RUN) {
        const int64_t n_codes = open_runs(runs, t, unit, start);
        for (int k = 0; k < UNIT; k++) {
            const eight_floats_in_memory *scales = (const void *)runs[k].scales;
            const eight_ints_in_memory *zeros = (const void *)runs[k].zeros;
            eight_ints dots;
            for (int64_t n = first; n < last; n++) {
                const int8_t *x = t->x + n * t->stride + start;
                const eight_ints_in_memory *x_sums = (const void *)(t->x_sums + n * t->x_spans + start / BLOCK);
                const eight_floats_in_memory *x_scales = (const void *)(t->x_scales + n * t->x_spans + start / BLOCK);
                for (int b = 0; b < n_codes / PADDING; b++) {
                    block_dots(runs[k].codes + b * PADDING, x + b * PADDING, &dots);
                    totals[n - first][k][b] +=
                        __builtin_convertvector(dots - zeros[b] * x_sums[b], eight_floats) * (x_scales[b] * scales[b]);
                }
            }
        }
    }
    for (int64_t o = unit * UNIT; o < smaller(unit * UNIT + UNIT, t->outputs); o++)
        for (int64_t n = first; n < last; n++) {
            const eight_floats s = totals[n - first][o % UNIT][0] + totals[n - first][o % UNIT][1];
            t->y[n * t->outputs + o] = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
        }
}

/* Rows of x are taken NEAR at a time, so that they stay in the cache while the units go by. */
#define PRODUCT(name, do_unit)                                                  \
    static void name(const void *task, int64_t first, int64_t last) {           \
        const struct int8_task *t = task;                                       \
        struct run runs[UNIT];                                                  \
        for (int k = 0; k < UNIT; k++) prepare(&runs[k], &t->w);                \
        for (int64_t n = 0; n < t->n; n += NEAR)                                \
            for (int64_t unit = first; unit < last; unit++)                     \
                do_unit(t, unit, n, smaller(n + NEAR, t->n), runs);             \
    }
PRODUCT(whole_rows, whole_unit)
PRODUCT(grouped, grouped_unit)

const struct quantized_int8_kernels PER_SET(quantized_int8_kernels) = {
    .round = round_rows, .whole_rows = whole_rows, .grouped = grouped};
