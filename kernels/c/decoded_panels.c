#include "decoded_panels.h"

#include "panel_lines.h"
#include "tile.h"

enum { FETCHED_AHEAD = 4096 }; /* bytes */

/* What the codes of a block mean, for part of a panel's outputs. */
struct meaning {
    lanes scales;
    lanes_of_ints zeros;
};

INLINE struct meaning meaning_of(const struct panels *w, int64_t panel, int64_t block, int part) {
    const int64_t group = w->group_blocks ? block / w->group_blocks : 0;
    return (struct meaning){
        group_scales(w, panel, group, part), w->zeros ? group_zeros(w, panel, group, part) : every(w->zero)};
}

/* The weights of input k of a quad, rounded as the op rounds them. */
INLINE lanes value(words codes, int k, struct meaning meaning) {
    const lanes_of_ints code = ((lanes_of_ints)codes >> 8 * k) & 255;
    return floats(code - meaning.zeros) * meaning.scales;
}

INLINE const uint8_t *lines_of(const struct panels *w, int64_t panel, int64_t block, const int bits) {
    return w->lines + (panel * w->blocks + block) * bits * LINE_BYTES;
}

/* One row by P panels: weights are decoded into registers. Terms are added in the order of `matmul_panel`. */
INLINE void one_row(const struct decoded_task *t, int64_t panel, const int bits, const int P) {
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
            struct meaning meanings[2][PARTS];
            EACH(p, P) {
                EACH(part, PARTS) meanings[p][part] = meaning_of(w, panel + p, block, part);
                EACH(line, bits) __builtin_prefetch(lines_of(w, panel + p, block, bits) + line * LINE_BYTES + FETCHED_AHEAD);
            }
            EACH(q, QUADS) EACH(part, PARTS) {
                words codes[2];
                EACH(p, P) codes[p] = quad(lines_of(w, panel + p, block, bits), q, part, bits);
                EACH(k, 4) EACH(p, P)
                    sums[p][part] += all(x[b * BLOCK_INPUTS + 4 * q + k]) * value(codes[p], k, meanings[p][part]);
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
INLINE void decode(const struct panels *w, int64_t panel, int64_t first, int64_t blocks, float *out, const int bits) {
    for (int64_t block = first; block < first + blocks; block++, out += BLOCK_INPUTS * PANEL) {
        const uint8_t *lines = lines_of(w, panel, block, bits);
        EACH(part, PARTS) {
            const struct meaning meaning = meaning_of(w, panel, block, part);
            EACH(q, QUADS) {
                const words codes = quad(lines, q, part, bits);
                EACH(k, 4) store(out + (4 * q + k) * PANEL + part * LANES, value(codes, k, meaning));
            }
        }
    }
}

#define OF_BITS(bits)                                                                                            \
    static void one_row_##bits(const struct decoded_task *t, int64_t panel, int64_t side) {                      \
        if (side == 2) one_row(t, panel, bits, 2);                                                               \
        else one_row(t, panel, bits, 1);                                                                         \
    }                                                                                                            \
    static void decode_##bits(const struct panels *w, int64_t panel, int64_t first, int64_t blocks, float *out) { \
        decode(w, panel, first, blocks, out, bits);                                                              \
    }
OF_BITS(2)
OF_BITS(3)
OF_BITS(4)
OF_BITS(5)
OF_BITS(6)
OF_BITS(7)
OF_BITS(8)
static void (*const ONE_ROW[])(const struct decoded_task *, int64_t, int64_t) = {
    0, 0, one_row_2, one_row_3, one_row_4, one_row_5, one_row_6, one_row_7, one_row_8};
static void (*const DECODE[])(const struct panels *, int64_t, int64_t, int64_t, float *) = {
    0, 0, decode_2, decode_3, decode_4, decode_5, decode_6, decode_7, decode_8};

static void product(const void *task, int64_t first, int64_t last) {
    const struct decoded_task *t = task;
    const struct panels *w = &t->w;
    const int64_t pairs = panel_pairs(t);
    float floats[DEPTH * PANEL] __attribute__((aligned(64))) = {0}; /* a last panel may have no neighbour */
    for (int64_t unit = first; unit < last; unit++) {
        const int64_t panel = unit % pairs * 2, start = panel * OUTPUTS, columns = smaller(PANEL, w->outputs - start);
        const int64_t row = unit / pairs * UNIT_ROWS, rows = smaller(UNIT_ROWS, t->n - row);
        const int64_t side = columns > OUTPUTS ? 2 : 1;
        float *y = t->y + row * w->outputs + start;
        if (t->n == 1)
            ONE_ROW[w->bits](t, panel, side);
        else
            for (int64_t l = 0; l == 0 || l < w->inputs; l += DEPTH) {
                const int64_t k = smaller(DEPTH, w->inputs - l), blocks = (k + BLOCK_INPUTS - 1) / BLOCK_INPUTS;
                for (int64_t p = 0; p < side; p++)
                    DECODE[w->bits](w, panel + p, l / BLOCK_INPUTS, blocks, floats + p * OUTPUTS);
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
