/* What a kernel file is made of. Each kernels/c/<family>.c is compiled once per instruction set and ends with its table:

       const struct norm_kernels PER_SET(norm_kernels) = {.layer_norm = layer_norm, ...};

   and its header says  FAMILY(norm_kernels)  to declare the tables and the function that picks one. */
#ifndef MINISLM_KERNEL_H
#define MINISLM_KERNEL_H

#include "threads.h"

#ifdef __SSE__
#include <immintrin.h>
#elif defined __aarch64__
#include <arm_neon.h>
#endif
#include <math.h>
#include <stddef.h>
#include <string.h>

#define JOINED(a, b) a##_##b
#define JOIN(a, b) JOINED(a, b)
#define PER_SET(name) JOIN(name, INSTRUCTION_SET) /* setup.py gives -DINSTRUCTION_SET=avx2 and so on */

#ifdef HAVE_avx2
#define IF_AVX2(...) __VA_ARGS__
#else
#define IF_AVX2(...)
#endif
#ifdef HAVE_avx2vnni
#define IF_AVX2VNNI(...) __VA_ARGS__
#else
#define IF_AVX2VNNI(...)
#endif
#ifdef HAVE_avx512
#define IF_AVX512(...) __VA_ARGS__
#else
#define IF_AVX512(...)
#endif
#ifdef HAVE_avx512vbmi2
#define IF_AVX512VBMI2(...) __VA_ARGS__
#else
#define IF_AVX512VBMI2(...)
#endif
#ifdef HAVE_dotprod
#define IF_DOTPROD(...) __VA_ARGS__
#else
#define IF_DOTPROD(...)
#endif
#ifdef HAVE_amx
#define IF_AMX(...) __VA_ARGS__
#else
#define IF_AMX(...)
#endif

/* `const struct norm_kernels *norm_kernels_for(set)`: the table for an instruction set, or the best one below it. */
#define FAMILY(name)                                                               \
    extern const struct name name##_baseline;                                      \
    IF_AVX2(extern const struct name name##_avx2;)                                 \
    IF_AVX2VNNI(extern const struct name name##_avx2vnni;)                         \
    IF_AVX512(extern const struct name name##_avx512;)                             \
    IF_AVX512VBMI2(extern const struct name name##_avx512vbmi2;)                   \
    IF_AMX(extern const struct name name##_amx;)                                   \
    IF_DOTPROD(extern const struct name name##_dotprod;)                           \
    static inline const struct name *name##_for(enum instruction_set set) {        \
        IF_DOTPROD(if (set >= DOTPROD) return &name##_dotprod;)                    \
        IF_AMX(if (set >= AMX) return &name##_amx;)                                \
        IF_AVX512VBMI2(if (set >= AVX512VBMI2) return &name##_avx512vbmi2;)        \
        IF_AVX512(if (set >= AVX512) return &name##_avx512;)                       \
        IF_AVX2VNNI(if (set >= AVX2VNNI) return &name##_avx2vnni;)                 \
        IF_AVX2(if (set >= AVX2) return &name##_avx2;)                             \
        return &name##_baseline;                                                   \
    }

/* LANES floats, the contents of one register: arithmetic works lane by lane (a vector extension of GCC and Clang). */
#if defined __AVX512F__
#define LANES 16
#elif defined __AVX2__
#define LANES 8
#else
#define LANES 4
#endif
typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t lanes_of_bits __attribute__((vector_size(4 * LANES)));                       /* what comparing gives */
typedef float lanes_in_memory __attribute__((vector_size(4 * LANES), aligned(1), may_alias)); /* at any address */

static inline lanes load(const float *x) { return *(const lanes_in_memory *)x; }
static inline void store(float *x, lanes value) { *(lanes_in_memory *)x = value; }
static inline lanes all(float value) { return value - (lanes){0}; }

/* The larger number of each lane; the second one where either is not a number. */
static inline lanes larger_lanes(lanes a, lanes b) {
#if defined __AVX512F__
    return (lanes)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined __AVX2__
    return (lanes)_mm256_max_ps((__m256)a, (__m256)b);
#else
    lanes_of_bits first = a > b;
    return (lanes)((first & (lanes_of_bits)a) | (~first & (lanes_of_bits)b));
#endif
}

/* The same register as parts of four lanes, which every instruction set has. */
typedef float four __attribute__((vector_size(16)));
typedef int32_t four_bits __attribute__((vector_size(16)));
typedef float four_in_memory __attribute__((vector_size(16), aligned(1), may_alias));
typedef float one_in_memory __attribute__((aligned(1), may_alias));
union parts {
    lanes whole;
    four part[LANES / 4];
};

static inline four load_four(const float *x) { return *(const four_in_memory *)x; }
static inline void store_four(float *x, four value) { *(four_in_memory *)x = value; }

/* Add up the lanes: the parts onto each other, then the four that are left; the order is the same every time. */
static inline float sum_of_lanes(lanes value) {
    union parts in = {value};
    four sum = in.part[0];
    for (int i = 1; i < LANES / 4; i++) sum += in.part[i];
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

static inline four larger_four(four a, four b) {
#ifdef __SSE__
    return (four)_mm_max_ps((__m128)a, (__m128)b);
#else
    four_bits first = a > b;
    return (four)((first & (four_bits)a) | (~first & (four_bits)b));
#endif
}

/* The largest of the lanes and of one more number; lanes that are not numbers may be passed over. */
static inline float largest_lane(lanes value, float top) {
    union parts in = {value};
    four most = in.part[0];
    for (int i = 1; i < LANES / 4; i++) most = larger_four(in.part[i], most);
    most = larger_four(__builtin_shufflevector(most, most, 2, 3, 0, 1), most);
    most = larger_four(__builtin_shufflevector(most, most, 1, 0, 3, 2), most);
    return most[0] > top ? most[0] : top;
}

/* Sum of x[i] * (y[i] - shift), in 4 * LANES running sums. */
static inline float shifted_dot(const float *x, const float *y, float shift, int64_t n) {
    lanes a = all(0), b = a, c = a, d = a, away = all(shift);
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        a += load(x + i) * (load(y + i) - away);
        b += load(x + i + LANES) * (load(y + i + LANES) - away);
        c += load(x + i + 2 * LANES) * (load(y + i + 2 * LANES) - away);
        d += load(x + i + 3 * LANES) * (load(y + i + 3 * LANES) - away);
    }
    for (; i + LANES <= n; i += LANES) a += load(x + i) * (load(y + i) - away);
    float rest = 0;
    for (; i < n; i++) rest += x[i] * (y[i] - shift);
    return sum_of_lanes((a + b) + (c + d)) + rest;
}

/* Sum of x[i] * y[i]. */
static inline float dot(const float *x, const float *y, int64_t n) { return shifted_dot(x, y, 0, n); }

/* Sum of x[i], in 4 * LANES running sums. */
static inline float sum(const float *x, int64_t n) {
    lanes a = all(0), b = a, c = a, d = a;
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        a += load(x + i), b += load(x + i + LANES);
        c += load(x + i + 2 * LANES), d += load(x + i + 3 * LANES);
    }
    for (; i + LANES <= n; i += LANES) a += load(x + i);
    float rest = 0;
    for (; i < n; i++) rest += x[i];
    return sum_of_lanes((a + b) + (c + d)) + rest;
}

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

#endif
