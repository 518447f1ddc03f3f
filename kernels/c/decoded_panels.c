#include "decoded_panels.h"

#include "masked_lines.h"
#include "tile.h"

enum { FETCHED_AHEAD = 4096 }; /* bytes */

/* What the codes of some quads mean, for part of a panel's outputs. */
struct meaning {
    lanes scales;
    lanes_of_ints zeros;
    lanes least; /* of two levels: what is taken away in the end */
};

/* How scales are stored: in one level; or in two, for blocks with something to take away, or for halves of blocks. */
enum kind { ONE_LEVEL, BLOCKS, HALVES };

INLINE struct meaning meaning_of(
    const struct panels *w, int64_t panel, int64_t block, int half, int part, const enum kind kind) {
    if (kind == ONE_LEVEL) {
        const int64_t group = w->group_blocks ? block / w->group_blocks : 0;
        const lanes_of_ints zeros = w->zeros ? group_zeros(w, panel, group, part) : every(w->zero);
        return (struct meaning){group_scales(w, panel, group, part), zeros, all(0)};
    }
    const int64_t group = kind == BLOCKS ? block : 2 * block + half, at = (panel * w->groups + group) * OUTPUTS + part * LANES;
    const int64_t super = panel * w->supers_of_panel + block / 8 * (kind == BLOCKS ? 2 : 1);
    const uint16_t *supers = w->supers + super * OUTPUTS + part * LANES;
    const lanes_of_ints steps = ints((const uint8_t *)w->scales + at);
    if (kind == HALVES) return (struct meaning){floats(steps - every(128)) * of_halves(supers), every(32), all(0)};
    const lanes least = floats(ints(w->zeros + at)) * of_halves(supers + OUTPUTS);
    return (struct meaning){floats(steps) * of_halves(supers), every(0), least};
}

/* The weights of input k of a quad, rounded as the op rounds them. */
INLINE lanes value(words codes, int k, struct meaning meaning, const enum kind kind) {
    const lanes_of_ints code = ((lanes_of_ints)codes >> 8 * k) & 255;
    const lanes steps = floats(kind == BLOCKS ? code : code - meaning.zeros) * meaning.scales;
    return kind == BLOCKS ? steps - meaning.least : steps;
}

INLINE const uint8_t *lines_of(const struct panels *w, int64_t panel, int64_t block, const int bits) {
    return w->lines + (panel * w->blocks + block) * stored_bits(bits) * LINE_BYTES;
}

/* Quad q of a block; what a table says, where there is one. */
INLINE words quad_of(const struct panels *w, const uint8_t *lines, int q, int part, const int bits) {
    const words codes = quad(lines, q, part, stored_bits(bits));
    return bits & TABLED ? from_table(codes, w->table) : codes;
}

/* The lines of a block: those of a masked panel are put into `room`. */
INLINE const uint8_t *lines_here(
    const struct panels *w, int64_t panel, int64_t block, struct stream *stream, union line *room, const int bits) {
    uint8_t zeros[OUTPUTS];
    if (bits != MASKED) return lines_of(w, panel, block, bits);
    masked_block(w, panel, block, stream, absent_codes(w, panel, block, zeros), room, w->bits);
    return room->bytes;
}

/* Where the values of P masked panels begin. */
INLINE void open_streams(const struct panels *w, int64_t panel, struct stream *streams, int64_t side) {
    for (int64_t p = 0; w->masks.bits && p < side; p++) streams[p] = stream_of(&w->masks, panel + p);
}

/* Whether all of them were taken. */
INLINE void close_streams(const struct panels *w, int64_t panel, const struct stream *streams, int64_t side) {
    for (int64_t p = 0; w->masks.bits && p < side; p++)
        if (streams[p].at != streams[p].end) note_bad(&w->masks, panel + p);
}

/* Write the outputs of a panel for one row. */
INLINE void put(const struct decoded_task *t, int64_t panel, const lanes *y) {
    float found[OUTPUTS];
    EACH(part, PARTS) store(found + part * LANES, y[part]);
    const int64_t first = panel * OUTPUTS;
    memcpy(t->y + first, found, smaller(OUTPUTS, t->w.outputs - first) * sizeof *found);
}

/* One row by P panels: weights are decoded into registers. Terms are added in the order of `matmul_panel`. */
INLINE void one_row(
    const struct decoded_task *t, int64_t panel, const int bits, const int P, const enum kind kind) {
    const int halves = kind == HALVES ? 2 : 1, quads = QUADS / halves;
    const struct panels *w = &t->w;
    const int stands = bits == MASKED ? NARROW : bits;
    lanes y[2][PARTS];
    float x[DEPTH] __attribute__((aligned(64)));
    struct stream streams[2] = {{0, 0}};
    open_streams(w, panel, streams, P);
    for (int64_t l = 0; l == 0 || l < w->inputs; l += DEPTH) {
        const int64_t inputs = smaller(DEPTH, w->inputs - l), blocks = (inputs + BLOCK_INPUTS - 1) / BLOCK_INPUTS;
        memcpy(x, t->x + l, inputs * sizeof *x);
        memset(x + inputs, 0, (DEPTH - inputs) * sizeof *x);
        lanes sums[2][PARTS];
        EACH(p, P) EACH(part, PARTS) sums[p][part] = all(0);
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t block = l / BLOCK_INPUTS + b;
            const uint8_t *lines[2];
            union line room[2][QUADS];
            EACH(p, P) lines[p] = lines_here(w, panel + p, block, streams + p, room[p], bits);
            EACH(p, P) EACH(line, stored_bits(stands))
                __builtin_prefetch(lines_of(w, panel + p, block, bits) + line * LINE_BYTES + FETCHED_AHEAD);
            EACH(half, halves) {
                struct meaning meanings[2][PARTS];
                EACH(p, P) EACH(part, PARTS) meanings[p][part] = meaning_of(w, panel + p, block, half, part, kind);
                EACH(each, quads) EACH(part, PARTS) {
                    const int q = half * quads + each;
                    const float *four = x + b * BLOCK_INPUTS + 4 * q;
                    words codes[2];
                    EACH(p, P) codes[p] = quad_of(w, lines[p], q, part, stands);
                    EACH(k, 4) EACH(p, P) sums[p][part] += all(four[k]) * value(codes[p], k, meanings[p][part], kind);
                }
            }
        }
        EACH(p, P) EACH(part, PARTS) y[p][part] = l ? y[p][part] + sums[p][part] : sums[p][part];
    }
    close_streams(w, panel, streams, P);
    EACH(p, P) put(t, panel + p, y[p]);
}

/* Decode blocks of a panel to half of a panel of floats. */
INLINE void decode(
    const struct panels *w, int64_t panel, int64_t first, int64_t blocks, struct stream *stream, float *out,
    const int bits, const enum kind kind) {
    const int halves = kind == HALVES ? 2 : 1, quads = QUADS / halves, stands = bits == MASKED ? NARROW : bits;
    for (int64_t block = first; block < first + blocks; block++, out += BLOCK_INPUTS * PANEL) {
        union line room[QUADS];
        const uint8_t *lines = lines_here(w, panel, block, stream, room, bits);
        EACH(part, PARTS) EACH(half, halves) {
            const struct meaning meaning = meaning_of(w, panel, block, half, part, kind);
            EACH(each, quads) {
                const int q = half * quads + each;
                const words codes = quad_of(w, lines, q, part, stands);
                EACH(k, 4) store(out + (4 * q + k) * PANEL + part * LANES, value(codes, k, meaning, kind));
            }
        }
    }
}

/* Put the first values into the lanes whose bits are set, zeros into the others. */
INLINE lanes expanded(const float *values, unsigned bits) {
#if LANES == 16
    __m512 zeros = _mm512_setzero_ps();
    __asm__("" : "+v"(zeros)); /* or the compiler takes the form that writes zeros itself: three times as slow on Zen 5 */
    return (lanes)_mm512_mask_expand_ps(zeros, (__mmask16)bits, _mm512_loadu_ps(values));
#elif LANES == 8
    const __m256i from = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)PLACES[bits]));
    const __m256 some = _mm256_permutevar8x32_ps(_mm256_loadu_ps(values), from);
    return (lanes)_mm256_andnot_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(from, _mm256_set1_epi32(7))), some);
#else
    lanes out = all(0);
    for (int l = 0; l < LANES; l++)
        if (bits >> l & 1) out[l] = *values++;
    return out;
#endif
}

/* The weights of the next input, of which the stream holds enough. */
INLINE void next_input(const struct decoded_task *t, unsigned mask, struct stream *stream, lanes *weights) {
    EACH(part, PARTS) {
        const unsigned bits = mask >> part * LANES & ((1u << LANES) - 1);
        weights[part] = expanded(t->floats + stream->at, bits);
        stream->at += __builtin_popcount(bits);
    }
}

/* The masks of some inputs; no bits, and noted, if they ask for more than the stream holds. */
INLINE const uint16_t *input_masks(
    const struct decoded_task *t, int64_t panel, int64_t first, int64_t inputs, const struct stream *stream) {
    static const uint16_t none[DEPTH];
    const uint16_t *masks = t->w.masks.bits + panel * t->w.blocks * BLOCK_INPUTS + first;
    int64_t count = 0;
    for (int64_t i = 0; i < inputs; i += 4) { /* there are whole blocks of masks */
        uint64_t four;
        memcpy(&four, masks + i, sizeof four);
        count += __builtin_popcountll(four);
    }
    if (count <= stream->end - stream->at) return masks;
    note_bad(&t->w.masks, panel);
    return none;
}

/* The same as one_row for values that are floats. */
INLINE void one_row_of_floats(const struct decoded_task *t, int64_t panel, const int P) {
    const struct panels *w = &t->w;
    lanes y[2][PARTS] = {0};
    struct stream streams[2] = {{0, 0}};
    open_streams(w, panel, streams, P);
    for (int64_t l = 0; l == 0 || l < w->inputs; l += DEPTH) {
        const int64_t inputs = smaller(DEPTH, w->inputs - l);
        const uint16_t *masks[2];
        EACH(p, P) masks[p] = input_masks(t, panel + p, l, inputs, streams + p);
        lanes sums[2][PARTS];
        EACH(p, P) EACH(part, PARTS) sums[p][part] = all(0);
        for (int64_t i = 0; i < inputs; i++)
            EACH(p, P) {
                lanes weights[PARTS];
                __builtin_prefetch(t->floats + streams[p].at + FETCHED_AHEAD / sizeof(float));
                next_input(t, masks[p][i], streams + p, weights);
                EACH(part, PARTS) sums[p][part] += all(t->x[l + i]) * weights[part];
            }
        EACH(p, P) EACH(part, PARTS) y[p][part] = l ? y[p][part] + sums[p][part] : sums[p][part];
    }
    close_streams(w, panel, streams, P);
    EACH(p, P) put(t, panel + p, y[p]);
}

static void one_row_floats(const struct decoded_task *t, int64_t panel, int64_t side) {
    if (side == 2) one_row_of_floats(t, panel, 2);
    else one_row_of_floats(t, panel, 1);
}

static void decode_floats(
    const struct decoded_task *t, int64_t panel, int64_t first, int64_t blocks, struct stream *stream, float *out) {
    const int64_t inputs = blocks * BLOCK_INPUTS;
    const uint16_t *masks = input_masks(t, panel, first * BLOCK_INPUTS, inputs, stream);
    for (int64_t i = 0; i < inputs; i++, out += PANEL) {
        lanes weights[PARTS];
        next_input(t, masks[i], stream, weights);
        EACH(part, PARTS) store(out + part * LANES, weights[part]);
    }
}

typedef void row_product(const struct decoded_task *t, int64_t panel, int64_t side);
typedef void decoder(
    const struct decoded_task *t, int64_t panel, int64_t first, int64_t blocks, struct stream *stream, float *out);
#define STORED(name, bits, kind)                                                                                 \
    static void one_row_##name(const struct decoded_task *t, int64_t panel, int64_t side) {                      \
        if (side == 2) one_row(t, panel, bits, 2, kind);                                                         \
        else one_row(t, panel, bits, 1, kind);                                                                   \
    }                                                                                                            \
    static void decode_##name(                                                                                   \
        const struct decoded_task *t, int64_t panel, int64_t first, int64_t blocks, struct stream *stream,           \
        float *out) {                                                                                            \
        decode(&t->w, panel, first, blocks, stream, out, bits, kind);                                            \
    }
STORED(2, 2, ONE_LEVEL)
STORED(3, 3, ONE_LEVEL)
STORED(4, 4, ONE_LEVEL)
STORED(5, 5, ONE_LEVEL)
STORED(6, 6, ONE_LEVEL)
STORED(7, 7, ONE_LEVEL)
STORED(8, 8, ONE_LEVEL)
STORED(tabled, TABLED + 4, ONE_LEVEL)
STORED(masked, MASKED, ONE_LEVEL)
STORED(q4_k, 4, BLOCKS)
STORED(q6_k, 6, HALVES)
static row_product *const ONE_ROW[] = {
    0, 0, one_row_2, one_row_3, one_row_4, one_row_5, one_row_6, one_row_7, one_row_8};
static decoder *const DECODE[] = {0, 0, decode_2, decode_3, decode_4, decode_5, decode_6, decode_7, decode_8};

static void product(const void *task, int64_t first, int64_t last) {
    const struct decoded_task *t = task;
    const struct panels *w = &t->w;
    const int64_t pairs = panel_pairs(t);
    row_product *const row_by_panels = t->floats       ? one_row_floats
                                       : w->masks.bits ? one_row_masked
                                       : w->tabled     ? one_row_tabled
                                       : !w->supers    ? ONE_ROW[w->bits]
                                       : w->zeros      ? one_row_q4_k
                                                       : one_row_q6_k;
    decoder *const decoded = t->floats       ? decode_floats
                             : w->masks.bits ? decode_masked
                             : w->tabled     ? decode_tabled
                             : !w->supers    ? DECODE[w->bits]
                             : w->zeros      ? decode_q4_k
                                             : decode_q6_k;
    float floats[DEPTH * PANEL] __attribute__((aligned(64))) = {0}; /* a last panel may have no neighbour */
    for (int64_t unit = first; unit < last; unit++) {
        const int64_t panel = unit % pairs * 2, start = panel * OUTPUTS, columns = smaller(PANEL, w->outputs - start);
        const int64_t row = unit / pairs * UNIT_ROWS, rows = smaller(UNIT_ROWS, t->n - row);
        const int64_t side = columns > OUTPUTS ? 2 : 1;
        float *y = t->y + row * w->outputs + start;
        struct stream streams[2] = {{0, 0}};
        if (t->n == 1) {
            row_by_panels(t, panel, side);
        } else {
            open_streams(w, panel, streams, side);
            for (int64_t l = 0; l == 0 || l < w->inputs; l += DEPTH) {
                const int64_t k = smaller(DEPTH, w->inputs - l), blocks = (k + BLOCK_INPUTS - 1) / BLOCK_INPUTS;
                for (int64_t p = 0; p < side; p++)
                    decoded(t, panel + p, l / BLOCK_INPUTS, blocks, streams + p, floats + p * OUTPUTS);
                const struct left x = {t->x + row * w->inputs + l, w->inputs, 1};
                matmul_panel(x, floats, y, w->outputs, rows, k, l > 0, columns);
            }
            close_streams(w, panel, streams, side);
        }
        if (t->bias)
            for (int64_t r = 0; r < rows; r++)
#pragma GCC ivdep
                for (int64_t j = 0; j < columns; j++) y[r * w->outputs + j] += t->bias[start + j];
    }
}

const struct decoded_panels_kernels PER_SET(decoded_panels_kernels) = {.product = product};
