/* Rounding activations to signed bytes. */
#ifndef MINISLM_ROUNDING_H
#define MINISLM_ROUNDING_H
#include "kernel.h"

/* The bits of the largest magnitude of n numbers: these compare as their bits do, read as whole numbers, and infinity and NaN
   come last. */
static inline uint32_t largest_bits(const float *x, int64_t n) {
    uint32_t largest = 0;
    int64_t i = 0;
#ifdef __AVX512F__
    __m512i most = _mm512_setzero_si512();
    for (; i + LANES <= n; i += LANES) {
        const __m512i bits = _mm512_and_si512(_mm512_loadu_si512(x + i), _mm512_set1_epi32(0x7fffffff));
        most = _mm512_max_epu32(most, bits);
    }
    largest = _mm512_reduce_max_epu32(most);
#endif
    for (; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, 4);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

/* Numbers times the inverse of a scale, to the nearest whole ones, halves to even, kept between -127 and 127. */
static inline void round_numbers(const float *x, int64_t n, float inverse, int8_t *codes) {
    int64_t i = 0;
#ifdef __AVX512F__
    for (; i + LANES <= n; i += LANES) {
        const __m512 code = (__m512)larger_lanes(all(-127), (lanes)_mm512_min_ps((__m512)(load(x + i) * inverse), (__m512)all(127)));
        _mm_storeu_si128((__m128i *)(codes + i), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(code)));
    }
#endif
    for (; i < n; i++) {
        float code = rintf(x[i] * inverse);
        code = code > 127 ? 127 : code;
        code = code < -127 ? -127 : code;
        codes[i] = (int8_t)(int32_t)code;
    }
}

/* Round n numbers as the op does, by a given scale or, if that is below 0, by their own; return it. */
static float round_group(const float *x, int64_t n, float given, int8_t *codes) {
    const uint32_t largest = largest_bits(x, n);
    const int finite = largest < 0x7f800000;
    const float steps = given < 0 ? 127 : 1;
    float size = given;
    if (given < 0) memcpy(&size, &largest, 4);
    if (size >= 0x1p-120f && finite) round_numbers(x, n, steps / size, codes);
    else if (n > 0) memset(codes, 0, n);
    return !finite ? NAN : size >= 0x1p-120f ? size / steps : 0;
}

#endif
