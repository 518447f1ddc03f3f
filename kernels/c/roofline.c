#include "roofline.h"

#if defined __SSE2__
#include <immintrin.h>
#elif defined __ARM_FEATURE_DOTPROD
#include <arm_neon.h>
#endif

typedef int64_t words __attribute__((vector_size(4 * LANES)));
typedef int64_t words_in_memory __attribute__((vector_size(4 * LANES), aligned(8), may_alias));

static void read_parts(const void *task, int64_t first, int64_t last) {
    const struct read_task *t = task;
    for (int64_t part = first; part < last; part++) {
        words sum[8] = {{0}};
        for (int64_t round = 0; round < t->rounds; round++) {
            const unsigned char *from = t->bytes + part * t->part, *end = from + t->part;
            for (; from < end; from += sizeof sum)
                for (int i = 0; i < 8; i++) sum[i] += ((const words_in_memory *)from)[i];
        }
        for (int i = 1; i < 8; i++) sum[0] += sum[i];
        int64_t total = 0;
        for (int i = 0; i < LANES / 2; i++) total += sum[0][i];
        t->sums[part] = total;
    }
}

/* So many sums at once that no product waits for the one before it: two units, each with four cycles of latency, and
   some more; and so few that all are in registers. */
enum { SUMS = 12 };

static void multiply_add(const void *task, int64_t first, int64_t last) {
    const struct peak_task *t = task;
    for (int64_t unit = first; unit < last; unit++) {
        lanes a = all(t->start), b = all(1 - t->start), sum[SUMS];
        for (int i = 0; i < SUMS; i++) sum[i] = all((float)i);
        for (int64_t n = 0; n < t->iterations; n++)
            for (int i = 0; i < SUMS; i++) sum[i] = sum[i] * a + b;
        for (int i = 1; i < SUMS; i++) sum[0] += sum[i];
        t->ends[unit] = sum_of_lanes(sum[0]);
    }
}

/* sum + products of the signed bytes of b with the bytes of a, as many as an instruction set adds up at once. */
#if defined __AVX512VNNI__
typedef __m512i bytes;
enum { PRODUCTS = 64 };
static inline bytes same_bytes(int x) { return _mm512_set1_epi8((char)x); }
static inline bytes add_products(bytes sum, bytes a, bytes b) { return _mm512_dpbusd_epi32(sum, a, b); }
#elif defined __AVXVNNI__
typedef __m256i bytes;
enum { PRODUCTS = 32 };
static inline bytes same_bytes(int x) { return _mm256_set1_epi8((char)x); }
static inline bytes add_products(bytes sum, bytes a, bytes b) { return _mm256_dpbusd_avx_epi32(sum, a, b); }
#elif defined __AVX2__
typedef __m256i bytes;
enum { PRODUCTS = 32 };
static inline bytes same_bytes(int x) { return _mm256_set1_epi8((char)x); }
static inline bytes add_products(bytes sum, bytes a, bytes b) {
    /* the empty assembly keeps the compiler from doing what depends on a and b alone once for all sums */
    __asm__ volatile("" : "+x"(b));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)));
}
#elif defined __SSE2__
typedef __m128i bytes; /* of which this set can multiply none: eight numbers of 16 bits */
enum { PRODUCTS = 8 };
static inline bytes same_bytes(int x) { return _mm_set1_epi16((short)x); }
static inline bytes add_products(bytes sum, bytes a, bytes b) {
    __asm__ volatile("" : "+x"(b));
    return _mm_add_epi32(sum, _mm_madd_epi16(a, b));
}
#elif defined __ARM_FEATURE_DOTPROD
typedef int32x4_t bytes;
enum { PRODUCTS = 16 };
static inline bytes same_bytes(int x) { return vreinterpretq_s32_s8(vdupq_n_s8((signed char)x)); }
static inline bytes add_products(bytes sum, bytes a, bytes b) {
    return vdotq_s32(sum, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b));
}
#else
typedef int32_t bytes __attribute__((vector_size(4 * LANES)));
enum { PRODUCTS = LANES };
static inline bytes same_bytes(int x) { return x - (bytes){0}; }
static inline bytes add_products(bytes sum, bytes a, bytes b) { return sum + a * b; }
#endif

static void add_bytes(const void *task, int64_t first, int64_t last) {
    const struct peak_task *t = task;
    for (int64_t unit = first; unit < last; unit++) {
        bytes a = same_bytes((int)(t->start * 2)), b = same_bytes((int)(t->start * 3)), sum[SUMS];
        for (int i = 0; i < SUMS; i++) sum[i] = same_bytes(i);
        for (int64_t n = 0; n < t->iterations; n++)
            for (int i = 0; i < SUMS; i++) sum[i] = add_products(sum[i], a, b);
        float end = 0;
        for (int i = 0; i < SUMS; i++) {
            int32_t one;
            memcpy(&one, &sum[i], sizeof one);
            end += (float)one;
        }
        t->ends[unit] = end;
    }
}

const struct roofline_kernels PER_SET(roofline_kernels) = {
    .read = read_parts,
    .fma = multiply_add,
    .int8 = add_bytes,
    .fma_operations = 2 * SUMS * LANES,
    .int8_products = SUMS * PRODUCTS,
};

#define IS_baseline 1
#if JOIN(IS, INSTRUCTION_SET) + 0 /* what follows stands once, beside the smallest set */

#if defined __x86_64__ && defined __linux__ && (__GNUC__ >= 11 || __clang_major__ >= 12)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { REQUEST = 0x1023, TILE_DATA = 18, TILES = 4 }; /* arch_prctl: allow this process the state of tiles */

int64_t amx_products(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 24 & 1) || !(d >> 25 & 1)) return 0;
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) ? 0 : TILES * 16 * 16 * 64;
}

__attribute__((target("amx-tile,amx-int8"))) void amx_int8(const void *task, int64_t first, int64_t last) {
    const struct peak_task *t = task;
    struct {
        uint8_t palette, row, unused[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int i = 0; i < 8; i++) shape.bytes[i] = 64, shape.rows[i] = 16;
    int32_t out[16 * 16] = {0};
    for (int64_t unit = first; unit < last; unit++) {
        _tile_loadconfig(&shape);
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        _tile_loadd(4, out, 64);
        _tile_loadd(5, out, 64);
        _tile_loadd(6, out, 64);
        _tile_loadd(7, out, 64);
        for (int64_t n = 0; n < t->iterations; n++) {
            _tile_dpbssd(0, 4, 6);
            _tile_dpbssd(1, 4, 7);
            _tile_dpbssd(2, 5, 6);
            _tile_dpbssd(3, 5, 7);
        }
        _tile_stored(0, out, 64);
        _tile_release();
        t->ends[unit] = (float)out[0];
    }
}
#else
int64_t amx_products(void) { return 0; }
void amx_int8(const void *task, int64_t first, int64_t last) { (void)task, (void)first, (void)last; }
#endif
#endif
