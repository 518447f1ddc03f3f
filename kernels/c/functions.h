/* Functions of one number, written without branches or calls so that the compiler can do a register of them at once. */
#ifndef MINISLM_FUNCTIONS_H
#define MINISLM_FUNCTIONS_H

#include "kernel.h"

/* 2^n for a whole n from -126 to 127. */
static inline float power_of_two(int32_t n) {
    int32_t bits = (int32_t)((uint32_t)(n + 127) << 23);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Keep x between low and high; NaN stays NaN. */
static inline float clipped(float x, float low, float high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

/* The value of a float16, by moving its bits to a float32's places. */
static inline float widened(uint16_t half) {
    union { uint32_t bits; float value; } u = {(uint32_t)(half & 0x7fff) << 13};
    u.value *= 0x1p112f; /* the exponents count from different numbers; subnormal halves become normal */
    if ((half & 0x7c00) == 0x7c00) u.bits |= 0x7f800000;
    u.bits |= (uint32_t)(half & 0x8000) << 16;
    return u.value;
}

/* The nearest float16, halves to even; what lies beyond its range becomes its largest number. */
static inline uint16_t narrowed(float x) {
    union { float value; uint32_t bits; } u = {x}, subnormal;
    const uint32_t sign = u.bits >> 16 & 0x8000;
    u.bits &= 0x7fffffff;
    subnormal.value = u.value + 0.5f; /* in steps of 2^-24, as subnormal halves are */
    const uint32_t whole = u.value < 65504 ? u.bits : 0x477fe000;
    uint32_t half = (whole + 0xfff + (whole >> 13 & 1) - (112u << 23)) >> 13;
    half = u.value < 0x1p-14f ? subnormal.bits - 0x3f000000 : half;
    half = u.bits > 0x7f800000 ? 0x7e00 : half;
    return (uint16_t)(half | sign);
}

/* Below this, e^x is 0: what it really is would be a denormal number, which processors take a hundred times longer to make. */
#define LEAST_EXPONENT (-87.3f)

/* e^x to about one unit in the last place, 0 and infinity beyond the range, NaN for NaN.
   x = n ln 2 + r; e^r = 1 + r + r^2 q(r), q fitted to a relative error of 3e-9; 2^n in two factors, as n may be 128. */
static inline float exponential(float x) {
    const float round_to_whole = 12582912; /* 1.5 * 2^23: numbers of this size have no fraction */
    const float given = x;
    x = clipped(x, LEAST_EXPONENT, 90);
    float n = (x * 1.44269504f + round_to_whole) - round_to_whole;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f; /* ln 2 in two parts, the first with few bits */
    float q = 0.00138145359f;
    q = q * r + 0.00836874545f;
    q = q * r + 0.0416683927f;
    q = q * r + 0.166665211f;
    q = q * r + 0.49999994f;
    float p = q * (r * r) + r + 1;
    int32_t whole = (int32_t)n, half = whole >> 1;
    p = p * power_of_two(half) * power_of_two(whole - half);
    return given < LEAST_EXPONENT ? 0 : p;
}

/* The same of a register of numbers that are at most 0, or not numbers. */
static inline lanes exponential_lanes(lanes x) {
    const lanes round_to_whole = all(12582912);
    const lanes_of_bits nothing = x < all(LEAST_EXPONENT);
    x = larger_lanes(all(LEAST_EXPONENT), x);
    lanes n = (x * 1.44269504f + round_to_whole) - round_to_whole;
    lanes r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    lanes q = all(0.00138145359f);
    q = q * r + 0.00836874545f;
    q = q * r + 0.0416683927f;
    q = q * r + 0.166665211f;
    q = q * r + 0.49999994f;
    lanes p = q * (r * r) + r + 1;
#ifdef __AVX512F__
    p = (lanes)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    p *= (lanes)((__builtin_convertvector(n, lanes_of_bits) + 127) << 23);
#endif
    return (lanes)((lanes_of_bits)p & ~nothing);
}

/* Logarithms of normal numbers, to about one unit in the last place of 1; NaN of what is not a number.
   x = 2^n (1 + f), 1 + f between the roots of 1/2 and 2; log(1 + f) = f - f^2 / 2 + f^3 q(f), q fitted to 3e-7 of f. */
static inline lanes logarithm_lanes(lanes x) {
    const lanes_of_bits bits = (lanes_of_bits)x, n = (bits - 0x3f3504f3) >> 23; /* from the root of 1/2 on */
    const lanes f = (lanes)(bits - (n << 23)) - 1;
    lanes q = all(-0.10487676f);
    q = q * f + 0.16154116f;
    q = q * f - 0.17102376f;
    q = q * f + 0.19908641f;
    q = q * f - 0.24984232f;
    q = q * f + 0.33334664f;
    q = (q * f - 0.5f) * (f * f) + f;
    return __builtin_convertvector(n, lanes) * 0.693147181f + q + (x - x);
}

/* 1 / (1 + e^-x). */
static inline float logistic(float x) { return 1 / (1 + exponential(-x)); }

/* tanh x, to about two units in the last place: from e^2x, or near 0, where that cancels, by its series up to x^9. */
static inline float hyperbolic_tangent(float x) {
    float s = x * x, far = 1 - 2 / (exponential(2 * x) + 1), near = 62.0f / 2835;
    near = near * s - 17.0f / 315;
    near = near * s + 2.0f / 15;
    near = near * s - 1.0f / 3;
    near = near * s * x + x;
    return s < 0.09f ? near : far;
}

/* The error function, by the rational function of `ops.activation.erf`. */
static inline float error_function(float x) {
    x = clipped(x, -4, 4);
    float s = x * x, above = 6.7824065e-06f, below = 2.6001491e-07f;
    above = above * s + 4.1106646e-04f;
    above = above * s + 4.2269407e-03f;
    above = above * s + 5.5748093e-02f;
    above = above * s + 1.9290583e-01f;
    above = above * s + 1.1283792e00f;
    below = below * s + 7.2498424e-05f;
    below = below * s + 1.4210275e-03f;
    below = below * s + 1.6295343e-02f;
    below = below * s + 1.1750209e-01f;
    below = below * s + 5.0429177e-01f;
    below = below * s + 1;
    return x * above / below;
}

/* The larger one; a NaN is taken when it comes, and nothing exceeds it. */
static inline float larger(float next, float top) { return next > top || next != next ? next : top; }

/* Largest of n >= 0 numbers, -inf for none, NaN where there is one. */
static inline float largest(const float *x, int64_t n) {
    float top = -INFINITY;
    int64_t i = 0;
    if (n >= LANES) {
        union parts most = {load(x)};
        for (i = LANES; i + LANES <= n; i += LANES) {
            lanes next = load(x + i);
            lanes_of_bits taken = (next > most.whole) | (next != next);
            most.whole = (lanes)((taken & (lanes_of_bits)next) | (~taken & (lanes_of_bits)most.whole));
        }
        for (int j = 0; j < 4; j++) {
            float column = most.part[0][j];
            for (int p = 1; p < LANES / 4; p++) column = larger(most.part[p][j], column);
            top = larger(column, top);
        }
    }
    for (; i < n; i++) top = larger(x[i], top);
    return top;
}

/* y[i] = e^(x[i] - shift); return their sum. x and y may be the same. */
static inline float exponentials(const float *x, float shift, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = exponential(x[i] - shift);
    return sum(y, n);
}

#endif
