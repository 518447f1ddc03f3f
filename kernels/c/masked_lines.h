/* Lines of masked panels: what is stored of 16 outputs, put in its places; what is not stored becomes the code of zero.
   No index is trusted: a panel whose masks ask for more than its values is noted, and nothing is read beyond them. */
#ifndef MINISLM_MASKED_LINES_H
#define MINISLM_MASKED_LINES_H
#include "panel_lines.h"


union line {
    words part[PARTS];
    uint8_t bytes[LINE_BYTES];
};

/* What is left of a panel's values, counted in numbers or in bytes of codes. */
struct stream {
    int64_t at, end;
};

INLINE void note_bad(const struct masks *masks, int64_t panel) {
    __atomic_store_n(masks->bad, panel + 1, __ATOMIC_RELAXED);
}

INLINE struct stream stream_of(const struct masks *masks, int64_t panel) {
    const struct stream stream = {masks->starts[panel], masks->starts[panel + 1]};
    if (0 <= stream.at && stream.at <= stream.end && stream.end <= masks->n_values) return stream;
    note_bad(masks, panel);
    return (struct stream){0, 0};
}

#ifdef __AVX512VBMI2__
/* 64 codes from the n-th on, each in a byte: what holds eight of them is brought into a word, whose bytes then take theirs. */
INLINE __m512i next_codes(const uint8_t *codes, int64_t n, int bits) {
    if (bits == 8) return _mm512_loadu_si512(codes + n);
    const __m512i word = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0), bytes = _mm512_set1_epi64(0x0706050403020100);
    const int64_t each = 0x0101010101010101;
    const __m512i from = _mm512_add_epi8(_mm512_mullo_epi64(word, _mm512_set1_epi64(bits * each)), bytes);
    const __m512i shift = _mm512_set1_epi64(0x0706050403020100 * bits + (n * bits & 7) * each);
    const __m512i packed = _mm512_permutexvar_epi8(from, _mm512_loadu_si512(codes + (n * bits >> 3)));
    return _mm512_and_si512(_mm512_multishift_epi64_epi8(shift, packed), _mm512_set1_epi8((char)((1 << bits) - 1)));
}
#endif

#if LANES == 8
/* For each mask of 8 places, what goes to them: of a place whose bit is set, how many are set below; of the others, 8 and
   the place. A register is read of them, of which only these 8 count. */
#define PLACE(mask, o) ((mask) >> (o) & 1 ? __builtin_popcount((mask) & ((1 << (o)) - 1)) : 8 + (o))
#define PLACES_OF(mask) {PLACE(mask, 0), PLACE(mask, 1), PLACE(mask, 2), PLACE(mask, 3), PLACE(mask, 4), PLACE(mask, 5), \
                         PLACE(mask, 6), PLACE(mask, 7)}
#define TIMES_FOUR(of, mask, step) of(mask), of((mask) + (step)), of((mask) + 2 * (step)), of((mask) + 3 * (step))
#define FOUR_PLACES(mask) TIMES_FOUR(PLACES_OF, mask, 1)
#define SIXTEEN_PLACES(mask) FOUR_PLACES(mask), FOUR_PLACES((mask) + 4), FOUR_PLACES((mask) + 8), FOUR_PLACES((mask) + 12)
#define MANY_PLACES(mask) SIXTEEN_PLACES(mask), SIXTEEN_PLACES((mask) + 16), SIXTEEN_PLACES((mask) + 32), SIXTEEN_PLACES((mask) + 48)
static const uint8_t PLACES[256][16] __attribute__((aligned(16))) = {MANY_PLACES(0), MANY_PLACES(64), MANY_PLACES(128), MANY_PLACES(192)};

/* The first codes go to the places whose bits are set, of 8; to each of the others goes its own of `absent`. */
INLINE __m128i put_eight(const uint8_t *codes, unsigned bits, __m128i absent) {
    const __m128i both = _mm_unpacklo_epi64(_mm_loadl_epi64((const __m128i *)codes), absent);
    return _mm_shuffle_epi8(both, _mm_load_si128((const __m128i *)PLACES[bits]));
}
#endif

/* Whether lines are made of codes as they are stored; otherwise each must be in a byte. */
#ifdef __AVX512VBMI2__
enum { STORED_CODES = 1 };
#else
enum { STORED_CODES = 0 };
#endif

/* A line of the codes from the n-th on, with `absent` codes of the 16 outputs where a mask has no bit. */
INLINE union line expanded_line(const uint8_t *codes, int64_t n, int bits, uint64_t mask, const uint8_t *absent) {
    union line line;
#ifndef __AVX512VBMI2__
    (void)bits;
    codes += n;
#endif
#if defined __AVX512VBMI2__
    const __m512i none = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)absent));
    const __m512i columns = _mm512_mask_expand_epi8(none, mask, next_codes(codes, n, bits)); /* input after input */
    const __m512i output = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i order = _mm512_add_epi8(_mm512_set1_epi32(0x30201000), _mm512_mullo_epi32(output, _mm512_set1_epi32(0x01010101)));
    line.part[0] = (words)_mm512_permutexvar_epi8(order, columns);
#elif LANES == 16
    const __m512i none = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)absent));
    line.part[0] = (words){0};
    EACH(k, 4) {
        const __m512i some = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)codes));
        const __m512i column = _mm512_mask_expand_epi32(none, (__mmask16)(mask >> 16 * k), some);
        line.part[0] |= (words)_mm512_slli_epi32(column, 8 * k);
        codes += __builtin_popcount((uint16_t)(mask >> 16 * k));
    }
#elif LANES == 8
    __m128i columns[2][4];
    const uint8_t *ours = (const uint8_t *)&mask; /* eight outputs, and then the other eight */
    EACH(k, 4) EACH(part, 2) {
        columns[part][k] = put_eight(codes, *ours, _mm_loadl_epi64((const __m128i *)(absent + 8 * part)));
        codes += (unsigned)__builtin_popcount(*ours++);
    }
    EACH(part, 2) {
        const __m128i low = _mm_unpacklo_epi8(columns[part][0], columns[part][1]);
        const __m128i high = _mm_unpacklo_epi8(columns[part][2], columns[part][3]);
        line.part[part] = (words)_mm256_set_m128i(_mm_unpackhi_epi16(low, high), _mm_unpacklo_epi16(low, high));
    }
#else
    for (int k = 0; k < 4; k++)
        for (int o = 0; o < OUTPUTS; o++, mask >>= 1) line.bytes[4 * o + k] = mask & 1 ? *codes++ : absent[o];
#endif
    return line;
}

/* The lines of a block, whose codes are next in the panel's stream; what a table says, where there is one. */
INLINE void masked_block(
    const struct panels *w, int64_t panel, int64_t block, struct stream *stream, const uint8_t *absent,
    union line *lines, const int bits) {
    uint64_t masks[QUADS]; /* 16 bits for each of the inputs of a quad */
    int64_t before[QUADS + 1] = {0};
    memcpy(masks, w->masks.bits + (panel * w->blocks + block) * BLOCK_INPUTS, sizeof masks);
    EACH(q, QUADS) before[q + 1] = before[q] + __builtin_popcountll(masks[q]);
    const int64_t bytes = (before[QUADS] * bits + 7) / 8;
    const uint8_t *codes = w->lines + stream->at;
    uint8_t room[QUADS * LINE_BYTES + SLACK];
    if (bytes > stream->end - stream->at) {
        note_bad(&w->masks, panel);
        memset(masks, 0, sizeof masks);
        codes = room;
    } else {
        stream->at += bytes;
        if (!STORED_CODES && bits < 8) {
            unpack(codes, before[QUADS], room, bits);
            codes = room;
        }
    }
    _Pragma("GCC unroll 1") for (int q = 0; q < QUADS; q++) {
        lines[q] = expanded_line(codes, before[q], bits, masks[q], absent);
        if (w->tabled) EACH(part, PARTS) lines[q].part[part] = from_table(lines[q].part[part], w->table);
    }
}

/* The codes of zero of a panel's outputs in a block, as they are stored. */
INLINE const uint8_t *absent_codes(const struct panels *w, int64_t panel, int64_t block, uint8_t *room) {
    const int64_t group = w->group_blocks ? block / w->group_blocks : 0;
    if (w->zeros) return w->zeros + (panel * w->groups + group) * OUTPUTS;
    memset(room, w->absent, OUTPUTS);
    return room;
}

#endif
