/* Lines of panels in the registers of an instruction set. A line is PARTS registers; so are 16 sums, or 16 floats. */
#ifndef MINISLM_PANEL_LINES_H
#define MINISLM_PANEL_LINES_H
#include "codes.h"
#include "panels.h"

enum { PARTS = OUTPUTS / LANES };
#define EACH(i, n) _Pragma("GCC unroll 8") for (int i = 0; i < (n); i++) /* n is a constant, once inlined */
/* How codes stand: in lines of so many bits, 2 to 7 or WIDE; or one in a byte that has a bit to spare, or four of them.
   With MASKED, as masked panels store codes that are then NARROW or WIDE; with TABLED, as numbers of what is then WIDE. */
enum { NARROW = 0, NIBBLES = 1, WIDE = 8, MASKED = 16, TABLED = 32 };
INLINE int stored_bits(const int bits) { return bits % MASKED; }
INLINE int is_wide(const int bits) { return stored_bits(bits) == WIDE || bits & TABLED; }

/* Quad q of a block, one code in each byte, before any table. */
INLINE words quad(const uint8_t *block, int q, int part, const int bits) {
    const uint8_t *at = block + part * 4 * LANES;
    if (bits == NARROW || bits == NIBBLES || bits == WIDE) return *(const words_in_memory *)(at + q * LINE_BYTES);
    words codes = {0};
    int first = 0;
    for (int width = 4; width; width /= 2) {
        if (!(bits & width)) continue;
        const words mask = (words){0} + ((1 << width) - 1) * UINT64_C(0x0101010101010101);
        const words line = *(const words_in_memory *)(at + (first + q % width) * LINE_BYTES);
        codes |= (line >> (q / width * width) & mask) << first;
        first += width;
    }
    return codes;
}

/* sums + products of a quad of each output with four bytes of x; of codes of WIDE bits, SHIFT is taken away first. */
#if defined __AVX512VNNI__ || defined __AVXVNNI__
enum { SHIFT = 0 };
INLINE lanes_of_ints add_products(lanes_of_ints sums, words codes, int32_t x, const int bits) {
    (void)bits;
#ifdef __AVX512VNNI__
    return (lanes_of_ints)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)codes, _mm512_set1_epi32(x));
#else
    return (lanes_of_ints)_mm256_dpbusd_avx_epi32((__m256i)sums, (__m256i)codes, _mm256_set1_epi32(x));
#endif
}
#elif defined __AVX2__
enum { SHIFT = 128 }; /* or sums of two products would not fit 16 bits: 128 * 127 * 2 does */
/* A sum as it is now: the compiler, which would add up in another order, may not, as it would run out of registers. */
INLINE lanes_of_ints in_order(lanes_of_ints sum) {
    __asm__("" : "+x"(sum));
    return sum;
}
INLINE lanes_of_ints add_products(lanes_of_ints sums, words codes, int32_t x, const int bits) {
    __m256i four = _mm256_set1_epi32(x);
    if (is_wide(bits)) {
        const __m256i steps = _mm256_xor_si256((__m256i)codes, _mm256_set1_epi8((char)128));
        four = _mm256_sign_epi8(four, steps);
        codes = (words)_mm256_abs_epi8(steps);
    }
    const __m256i pairs = _mm256_maddubs_epi16((__m256i)codes, four);
    return in_order(sums + (lanes_of_ints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#elif defined __SSE2__
#include <emmintrin.h>
enum { SHIFT = 0 };
INLINE lanes_of_ints add_products(lanes_of_ints sums, words codes, int32_t x, const int bits) {
    (void)bits;
    const __m128i none = _mm_setzero_si128(), four = _mm_set1_epi32(x);
    const __m128i wide = _mm_srai_epi16(_mm_unpacklo_epi8(none, four), 8);
    const __m128 low = _mm_castsi128_ps(_mm_madd_epi16(_mm_unpacklo_epi8((__m128i)codes, none), wide));
    const __m128 high = _mm_castsi128_ps(_mm_madd_epi16(_mm_unpackhi_epi8((__m128i)codes, none), wide));
    const __m128i even = _mm_castps_si128(_mm_shuffle_ps(low, high, 0x88));
    const __m128i odd = _mm_castps_si128(_mm_shuffle_ps(low, high, 0xdd));
    return sums + (lanes_of_ints)even + (lanes_of_ints)odd;
}
#elif defined __aarch64__
enum { SHIFT = 128 }; /* both sides are signed bytes */
INLINE lanes_of_ints add_products(lanes_of_ints sums, words codes, int32_t x, const int bits) {
    const int8x16_t four = vreinterpretq_s8_s32(vdupq_n_s32(x)), own = (int8x16_t)codes;
    const int8x16_t steps = is_wide(bits) ? veorq_s8(own, vdupq_n_s8(-128)) : own;
#ifdef __ARM_FEATURE_DOTPROD
    return (lanes_of_ints)vdotq_s32((int32x4_t)sums, steps, four);
#else
    const int16x8_t low = vmull_s8(vget_low_s8(steps), vget_low_s8(four)), high = vmull_high_s8(steps, four);
    return sums + (lanes_of_ints)vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
#endif
}
#else
enum { SHIFT = 0 };
INLINE lanes_of_ints add_products(lanes_of_ints sums, words codes, int32_t x, const int bits) {
    (void)bits;
    uint8_t code[4 * LANES];
    int8_t four[4];
    memcpy(code, &codes, sizeof code), memcpy(four, &x, 4);
    for (int o = 0; o < LANES; o++)
        for (int k = 0; k < 4; k++) sums[o] += code[4 * o + k] * four[k];
    return sums;
}
#endif

/* The same for quad q of a block. Where pairs of products come in 16 bits, these hold the sums of some quads, which need
   not go on to 32 bits one by one. */
#if defined __AVX2__ && !defined __AVX512VNNI__ && !defined __AVXVNNI__
INLINE void add_quad(lanes_of_ints *sums, lanes_of_ints *pairs, int q, words codes, int32_t x, const int bits) {
    /* so many: a pair is at most (2^bits - 1) * 127 * 2 */
    const int together = bits == NIBBLES || (bits >= 2 && bits <= 4) ? 8 : bits == 5 ? 4 : bits == 6 ? 2 : 1;
    if (together == 1) {
        *sums = add_products(*sums, codes, x, bits);
        return;
    }
    const __m256i some = _mm256_maddubs_epi16((__m256i)codes, _mm256_set1_epi32(x));
    *pairs = in_order((lanes_of_ints)(q % together ? _mm256_add_epi16((__m256i)*pairs, some) : some));
    if (q % together == together - 1) *sums += (lanes_of_ints)_mm256_madd_epi16((__m256i)*pairs, _mm256_set1_epi16(1));
}
#else
INLINE void add_quad(lanes_of_ints *sums, lanes_of_ints *pairs, int q, words codes, int32_t x, const int bits) {
    (void)pairs, (void)q;
    *sums = add_products(*sums, codes, x, bits);
}
#endif

/* What products have taken away from codes. */
INLINE int shift_of(const int bits) { return is_wide(bits) ? SHIFT : 0; }

/* How the codes of a matrix stand once they are unpacked. */
INLINE int unpacked(const struct panels *w) {
    return w->tabled || w->bits == WIDE ? WIDE : w->bits <= 4 ? NIBBLES : NARROW;
}

INLINE lanes_of_ints every(int32_t value) { return (lanes_of_ints){0} + value; }
INLINE lanes_of_ints load_ints(const int32_t *x) { return *(const lanes_of_ints *)x; }
INLINE void store_ints(int32_t *x, lanes_of_ints value) { *(lanes_of_ints *)x = value; }
INLINE lanes floats(lanes_of_ints sums) { return __builtin_convertvector(sums, lanes); }

/* The fields of a rounded row. */
INLINE const int8_t *x_codes(const struct rounded *x, int64_t n) { return x->rows + n * x->stride; }
INLINE const float *x_scales(const struct rounded *x, int64_t n) {
    return (const float *)(x_codes(x, n) + x->blocks * BLOCK_INPUTS);
}
INLINE const int16_t *x_halves(const struct rounded *x, int64_t n) { return (const int16_t *)(x_scales(x, n) + x->blocks); }

/* The sum of the codes of a block. */
INLINE int32_t x_sum(const struct rounded *x, int64_t n, int64_t block) {
    const int16_t *halves = x_halves(x, n) + 2 * block;
    return halves[0] + halves[1];
}

/* LANES float16 numbers. */
INLINE lanes of_halves(const uint16_t *halves) {
#if LANES == 16
    return (lanes)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)halves));
#elif defined __F16C__
    return (lanes)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)halves));
#elif defined __aarch64__
    return (lanes)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(halves)));
#else
    lanes wide;
    for (int l = 0; l < LANES; l++) wide[l] = widened(halves[l]);
    return wide;
#endif
}

/* Scales of a group's outputs. */
INLINE lanes group_scales(const struct panels *w, int64_t panel, int64_t group, int part) {
    const int64_t at = (panel * w->groups + group) * OUTPUTS + part * LANES;
    if (!w->half_scales) return load((const float *)w->scales + at);
    return of_halves((const uint16_t *)w->scales + at);
}

/* Codes of zero in a group's outputs. */
INLINE lanes_of_ints group_zeros(const struct panels *w, int64_t panel, int64_t group, int part) {
    return ints(w->zeros + (panel * w->groups + group) * OUTPUTS + part * LANES);
}

#endif
