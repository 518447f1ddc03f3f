/* Matrices of small whole numbers as `minislm.ops.formats` packs them: code i of a row takes the bits
   [i * bits, (i + 1) * bits) of the row's little-endian bit stream, and value = scale * (code - zero), or
   scale * (table[code] - zero). */
#ifndef MINISLM_CODES_H
#define MINISLM_CODES_H
#include "functions.h"
#ifdef __AVX2__
#include <immintrin.h>
#endif

/* For what must be compiled into its caller, because an argument is a constant there. */
#define INLINE static inline __attribute__((always_inline))

struct packed {
    const uint8_t *codes, *end; /* (O, row_bytes), and the byte behind */
    const void *scales;         /* (O, row_groups), float16 or float32 */
    const uint8_t *zeros;       /* (O, row_groups), or null: `zero` everywhere */
    int64_t inputs;
    int64_t row_bytes, row_groups;
    int group_shift; /* 2^group_shift inputs share a scale: 32, 64, 128, or for whole rows 2^62 */
    int bits, zero, half_scales;
    int tabled; /* whether codes, of 4 bits, are numbers of bytes in `table` */
    uint8_t table[16];
};

typedef uint64_t words __attribute__((vector_size(4 * LANES)));
typedef uint64_t words_in_memory __attribute__((vector_size(4 * LANES), aligned(1), may_alias));

/* The bytes of a table whose numbers these are; where there is no code, any byte may stand. */
INLINE words from_table(words codes, const uint8_t *table) {
#if LANES == 16
    const __m128i all = _mm_loadu_si128((const __m128i *)table);
    return (words)_mm512_shuffle_epi8(_mm512_broadcast_i32x4(all), (__m512i)codes);
#elif LANES == 8
    const __m128i all = _mm_loadu_si128((const __m128i *)table);
    return (words)_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(all), (__m256i)codes);
#else
    uint8_t bytes[4 * LANES];
    memcpy(bytes, &codes, sizeof bytes);
    for (int i = 0; i < 4 * LANES; i++) bytes[i] = table[bytes[i] & 15];
    memcpy(&codes, bytes, sizeof bytes);
    return codes;
#endif
}

/* Rows are read in runs of codes, short enough for the first cache; blocks are the smallest groups. */
enum { RUN = 512, BLOCK_SHIFT = 5, BLOCK = 1 << BLOCK_SHIFT, RUN_BLOCKS = RUN / BLOCK, PADDING = 256, BEYOND = 16 };

struct run {
    const uint8_t *codes;      /* readable up to the next multiple of PADDING codes, and BEYOND bytes more */
    int bits;                  /* of each, as they stand there: those of the matrix, or 8 */
    int64_t first, last;       /* places in the row */
    float scales[RUN_BLOCKS];  /* of each block */
    int32_t zeros[RUN_BLOCKS];
    uint8_t room[RUN + BEYOND]; /* for unpacked codes */
    uint8_t end[RUN + BEYOND];  /* for a copy of codes that stand too near to the end of the matrix */
};

/* Move the 8 numbers in the low bits of a word to its 8 bytes. */
static inline uint64_t spread(uint64_t word, int bits) {
#if defined __AVX512F__ && defined __BMI2__ /* where there is AVX-512, the instruction is fast */
    return _pdep_u64(word, ((UINT64_C(1) << bits) - 1) * UINT64_C(0x0101010101010101));
#else /* halves apart, then quarters, then eighths */
    const uint64_t half = (UINT64_C(1) << 4 * bits) - 1;
    const uint64_t quarter = ((UINT64_C(1) << 2 * bits) - 1) * UINT64_C(0x0000000100000001);
    const uint64_t eighth = ((UINT64_C(1) << bits) - 1) * UINT64_C(0x0001000100010001);
    word = (word & half) | (word >> 4 * bits & half) << 32;
    word = (word & quarter) | (word >> 2 * bits & quarter) << 16;
    return (word & eighth) | (word >> bits & eighth) << 8;
#endif
}

/* Unpack n codes; reads only the bytes that hold them, and writes whole words of 8 codes. */
INLINE void unpack_bits(const uint8_t *in, int64_t n, uint8_t *codes, const int bits) {
    const uint8_t *end = in + (n * bits + 7) / 8;
    const uint64_t used = ~UINT64_C(0) >> (64 - 8 * bits);
    uint64_t word;
    for (; in + 8 <= end; in += bits, codes += 8) {
        memcpy(&word, in, 8);
        word = spread(word & used, bits);
        memcpy(codes, &word, 8);
    }
    for (; in < end; in += bits, codes += 8) {
        word = 0;
        memcpy(&word, in, smaller(bits, end - in));
        word = spread(word, bits);
        memcpy(codes, &word, 8);
    }
}

static inline void unpack(const uint8_t *in, int64_t n, uint8_t *codes, int bits) {
    switch (bits) {
    case 1: unpack_bits(in, n, codes, 1); break;
    case 2: unpack_bits(in, n, codes, 2); break;
    case 3: unpack_bits(in, n, codes, 3); break;
    case 4: /* which the compiler vectorises */
        for (int64_t i = 0; i < n / 2; i++) codes[2 * i] = in[i] & 15, codes[2 * i + 1] = in[i] >> 4;
        if (n % 2) codes[n - 1] = in[n / 2] & 15;
        break;
    case 5: unpack_bits(in, n, codes, 5); break;
    case 6: unpack_bits(in, n, codes, 6); break;
    case 7: unpack_bits(in, n, codes, 7); break;
    default: memcpy(codes, in, n);
    }
}

/* Make a run ready for `open_run`. */
static inline void prepare(struct run *run, const struct packed *w) {
    memset(run, 0, sizeof *run);
    for (int b = 0; b < RUN_BLOCKS; b++) run->zeros[b] = w->zero;
}

/* Codes of up to DIRECT bits can be read as they stand by `block_values`; NO_BITS is for those who want bytes. */
enum { NO_BITS = 0, DIRECT = LANES == 4 ? 0 : 4 };

/* Read row o from place `first`, a multiple of BLOCK, to `last`, at most RUN places later; unpack what has more bits
   than `direct`, and is no byte, or has a table. */
static inline void open_run(
    struct run *run, const struct packed *w, int64_t o, int64_t first, int64_t last, int direct) {
    const int64_t n = last - first, bytes = (n * w->bits + 7) / 8;
    run->codes = w->codes + o * w->row_bytes + first / 8 * w->bits;
    run->first = first, run->last = last, run->bits = w->bits;
    if ((w->bits > direct && w->bits < 8) || w->tabled) {
        unpack(run->codes, n, run->room, w->bits);
        for (int64_t i = 0; w->tabled && i < n; i += 4 * LANES) {
            words_in_memory *codes = (words_in_memory *)(run->room + i);
            *codes = from_table(*codes, w->table);
        }
        run->codes = run->room, run->bits = 8;
    } else if (w->end - run->codes < (n + PADDING) / 8 * w->bits + BEYOND) {
        memcpy(run->end, run->codes, bytes);
        run->codes = run->end;
    }
    const int64_t group = first >> w->group_shift, groups = ((last - 1) >> w->group_shift) + 1 - group;
    const int64_t j = o * w->row_groups + group;
    float scales[RUN_BLOCKS + 1];
    if (w->half_scales)
        for (int64_t k = 0; k < groups; k++) scales[k] = widened(((const uint16_t *)w->scales)[j + k]);
    else
        for (int64_t k = 0; k < groups; k++) scales[k] = ((const float *)w->scales)[j + k];
    const int shift = w->group_shift - BLOCK_SHIFT;
    const int64_t before = (first >> BLOCK_SHIFT) - (group << shift); /* blocks of the first group that are not ours */
    for (int64_t b = 0; b * BLOCK < n; b++) run->scales[b] = scales[(before + b) >> shift];
    if (w->zeros)
        for (int64_t b = 0; b * BLOCK < n; b++) run->zeros[b] = w->zeros[j + ((before + b) >> shift)];
}

typedef int32_t lanes_of_ints __attribute__((vector_size(4 * LANES)));

/* LANES bytes as whole numbers (GCC 12 by itself would convert them one at a time). */
static inline lanes_of_ints ints(const uint8_t *codes) {
#if LANES == 16
    return (lanes_of_ints)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)codes));
#elif LANES == 8
    return (lanes_of_ints)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)codes));
#else
    typedef uint8_t bytes __attribute__((vector_size(16)));
    uint32_t four;
    memcpy(&four, codes, 4);
    const bytes b = (bytes)(lanes_of_ints){(int32_t)four}, zero = {0};
    const bytes pairs = __builtin_shufflevector(b, zero, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    return (lanes_of_ints)__builtin_shufflevector(pairs, zero, 0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23);
#endif
}

#if LANES > 4
/* LANES numbers of at most 4 bits from the place that begins with this byte; above their bits is what comes next.
   A word of 32 bits holds 8 of them: it is copied to 8 lanes, and each lane shifts its own number down. */
static inline lanes_of_ints ints_of_bits(const uint8_t *packed, int bits) {
#if LANES == 16
    const __m512i lane = _mm512_set_epi32(7, 6, 5, 4, 3, 2, 1, 0, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i from = _mm512_mask_set1_epi8(_mm512_setzero_si512(), ~UINT64_C(0) << 32, (char)bits); /* word 2 */
    const __m512i word = _mm512_add_epi8(from, _mm512_set1_epi32(0x03020100));
    const __m512i shift = _mm512_mullo_epi32(lane, _mm512_set1_epi32(bits));
    const __m512i all = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)packed));
    return (lanes_of_ints)_mm512_srlv_epi32(_mm512_shuffle_epi8(all, word), shift);
#else
    const __m256i lane = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
    int32_t word;
    memcpy(&word, packed, 4);
    return (lanes_of_ints)_mm256_srlv_epi32(_mm256_set1_epi32(word), _mm256_mullo_epi32(lane, _mm256_set1_epi32(bits)));
#endif
}
#endif

enum { BLOCK_LANES = BLOCK / LANES };

/* The values of block b of a run, rounded as the op rounds them. */
static inline void block_values(const struct run *run, int64_t b, lanes *values) {
    const lanes scale = all(run->scales[b]);
    const lanes_of_ints zero = (lanes_of_ints){0} + run->zeros[b];
    if (LANES == 4 || run->bits == 8) {
        for (int l = 0; l < BLOCK_LANES; l++)
            values[l] = scale * __builtin_convertvector(ints(run->codes + b * BLOCK + l * LANES) - zero, lanes);
        return;
    }
#if LANES > 4
    const uint8_t *codes = run->codes + b * (BLOCK / 8) * run->bits;
    const lanes_of_ints mask = (lanes_of_ints){0} + ((1 << run->bits) - 1);
#if LANES == 16 /* the 16 values that there are, of which each lane takes one */
    const lanes_of_ints code = (lanes_of_ints){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} & mask;
    const lanes table = scale * __builtin_convertvector(code - zero, lanes);
    for (int l = 0; l < BLOCK_LANES; l++) {
        const __m512i place = (__m512i)ints_of_bits(codes + l * 2 * run->bits, run->bits);
        values[l] = (lanes)_mm512_permutexvar_ps(place, (__m512)table);
    }
#else
    for (int l = 0; l < BLOCK_LANES; l++) {
        const lanes_of_ints code = ints_of_bits(codes + l * run->bits, run->bits) & mask;
        values[l] = scale * __builtin_convertvector(code - zero, lanes);
    }
#endif
#endif
}

/* Write the values of a run. */
static inline void decode_run(const struct run *run, float *out) {
    const int64_t n = run->last - run->first;
    for (int64_t b = 0; b * BLOCK < n; b++) {
        lanes values[BLOCK_LANES];
        block_values(run, b, values);
        if ((b + 1) * BLOCK <= n)
            for (int l = 0; l < BLOCK_LANES; l++) store(out + b * BLOCK + l * LANES, values[l]);
        else
            memcpy(out + b * BLOCK, values, (n - b * BLOCK) * sizeof(float));
    }
}

#endif
