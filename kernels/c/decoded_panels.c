#include "decoded_panels.h"

#include "panel_lines.h"
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
    return w->lines + (panel * w->blocks + block) * bits * LINE_BYTES;
}

/* One row by P panels: weights are decoded into registers. Terms are added in the order of `matmul_panel`. */
INLINE void one_row(
    const struct decoded_task *t, int64_t panel, const int bits, const int P, const enum kind kind) {
    const int halves = kind == HALVES ? 2 : 1, quads = QUADS / halves;
    const struct panels *w = &t->w;
    lanes y[2][PARTS];
    float x[DEPTH] __attribute__((aligned(64)));
    for (int64_t l = 0; l == 0 || l < w->inputs; l += DEPTH) {
        const int64_t inputs = smaller(DEPTH, w->inputs - l), blocks = (inputs + BLOCK_INPUTS - 1) / BLOCK_INPUTS;
        memcpy(x, t->x + l, inputs * sizeof *x);
        memset(x + inputs, 0, (DEPTH - inputs) * sizeof *x);
        lanes sums[2][PARTS];
        EACH(p, P) EACH(part, PARTS) sums[p][part] = all(0);
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t block = l / BLOCK_INPUTS + b;
            EACH(p, P) EACH(line, bits)
                __builtin_prefetch(lines_of(w, panel + p, block, bits) + line * LINE_BYTES + FETCHED_AHEAD);
            EACH(half, halves) {
                struct meaning meanings[2][PARTS];
                EACH(p, P) EACH(part, PARTS) meanings[p][part] = meaning_of(w, panel + p, block, half, part, kind);
                EACH(each, quads) EACH(part, PARTS) {
                    const int q = half * quads + each;
                    const float *four = x + b * BLOCK_INPUTS + 4 * q;
                    words codes[2];
                    EACH(p, P) codes[p] = quad(lines_of(w, panel + p, block, bits), q, part, bits);
                    EACH(k, 4) EACH(p, P) sums[p][part] += all(four[k]) * value(codes[p], k, meanings[p][part], kind);
                }
            }
        }
        EACH(p, P) EACH(part, PARTS) y[p][part] = l ? y[p][part] + sums[p][part] : sums[p][part];
    }
    EACH(p, P) {
        float found[OUTPUTS];
        EACH(part, PARTS) store(found + part * LANES, y[p][part]);
        const int64_t first = (panel + p) * OUTPUTS;
        memcpy(t->y + first, found, smaller(OUTPUTS, w->outputs - first) * sizeof *found);
    }
}

/* Decode blocks of a panel to half of a panel of floats. */
INLINE void decode(
    const struct panels *w, int64_t panel, int64_t first, int64_t blocks, float *out, const int bits,
    const enum kind kind) {
    const int halves = kind == HALVES ? 2 : 1, quads = QUADS / halves;
    for (int64_t block = first; block < first + blocks; block++, out += BLOCK_INPUTS * PANEL) {
        const uint8_t *lines = lines_of(w, panel, block, bits);
        EACH(part, PARTS) EACH(half, halves) {
            const struct meaning meaning = meaning_of(w, panel, block, half, part, kind);
            EACH(each, quads) {
                const int q = half * quads + each;
                const words codes = quad(lines, q, part, bits);
                EACH(k, 4) store(out + (4 * q + k) * PANEL + part * LANES, value(codes, k, meaning, kind));
            }
        }
    }
}

typedef void row_product(const struct decoded_task *t, int64_t panel, int64_t side);
typedef void decoder(const struct panels *w, int64_t panel, int64_t first, int64_t blocks, float *out);
#define STORED(name, bits, kind)                                                                                 \
    static void one_row_##name(const struct decoded_task *t, int64_t panel, int64_t side) {                      \
        if (side == 2) one_row(t, panel, bits, 2, kind);                                                         \
        else one_row(t, panel, bits, 1, kind);                                                                   \
    }                                                                                                            \
    static void decode_##name(const struct panels *w, int64_t panel, int64_t first, int64_t blocks, float *out) { \
        decode(w, panel, first, blocks, out, bits, kind);                                                        \
    }
STORED(2, 2, ONE_LEVEL)
STORED(3, 3, ONE_LEVEL)
STORED(4, 4, ONE_LEVEL)
STORED(5, 5, ONE_LEVEL)
STORED(6, 6, ONE_LEVEL)
STORED(7, 7, ONE_LEVEL)
STORED(8, 8, ONE_LEVEL)
STORED(q4_k, 4, BLOCKS)
STORED(q6_k, 6, HALVES)
static row_product *const ONE_ROW[] = {
    0, 0, one_row_2, one_row_3, one_row_4, one_row_5, one_row_6, one_row_7, one_row_8};
static decoder *const DECODE[] = {0, 0, decode_2, decode_3, decode_4, decode_5, decode_6, decode_7, decode_8};

static void product(const void *task, int64_t first, int64_t last) {
    const struct decoded_task *t = task;
    const struct panels *w = &t->w;
    const int64_t pairs = panel_pairs(t);
    row_product *const row_by_panels = !w->supers ? ONE_ROW[w->bits] : w->zeros ? one_row_q4_k : one_row_q6_k;
    decoder *const decoded = !w->supers ? DECODE[w->bits] : w->zeros ? decode_q4_k : decode_q6_k;
    float floats[DEPTH * PANEL] __attribute__((aligned(64))) = {0}; /* a last panel may have no neighbour */
    for (int64_t unit = first; unit < last; unit++) {
        const int64_t panel = unit % pairs * 2, start = panel * OUTPUTS, columns = smaller(PANEL, w->outputs - start);
        const int64_t row = unit / pairs * UNIT_ROWS, rows = smaller(UNIT_ROWS, t->n - row);
        const int64_t side = columns > OUTPUTS ? 2 : 1;
        float *y = t->y + row * w->outputs + start;
        if (t->n == 1)
            row_by_panels(t, panel, side);
        else
            for (int64_t l = 0; l == 0 || l < w->inputs; l += DEPTH) {
                const int64_t k = smaller(DEPTH, w->inputs - l), blocks = (k + BLOCK_INPUTS - 1) / BLOCK_INPUTS;
                for (int64_t p = 0; p < side; p++)
                    decoded(w, panel + p, l / BLOCK_INPUTS, blocks, floats + p * OUTPUTS);
                const struct left x = {t->x + row * w->inputs + l, w->inputs, 1};
                matmul_panel(x, floats, y, w->outputs, rows, k, l > 0, columns);
            }
        if (t->bias)
            for (int64_t r = 0; r < rows; r++)
#pragma GCC ivdep
                for (int64_t j = 0; j < columns; j++) y[r * w->outputs + j] += t->bias[start + j];
    }
}

const struct decoded_panels_kernels PER_SET(decoded_panels_kernels) = {.product = product};
