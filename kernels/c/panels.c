#include "panels.h"
#include "masked_lines.h"
#include "rounding.h"

/* Rows of x by panels that a tile has, as many as the registers hold sums of. */
#if LANES == 16
enum { ROWS = 6, SIDE = 2 };
#elif LANES == 8
enum { ROWS = 4, SIDE = 1 };
#else
enum { ROWS = 1, SIDE = 1 };
#endif
/* Rows of x that stay near while panels go by, and blocks over which sums surely fit 32 bits: 255 * 127 * 65,536. */
#ifdef __AMX_INT8__
enum { NEAR = 192 }; /* it is so fast that reading the panels again would be felt */
#else
enum { NEAR = 96 };
#endif
enum { DEPTH = PIECE_BLOCKS, SPAN = 65536 / BLOCK_INPUTS };
enum { MASKS_AHEAD = 16, FLIGHTS = 4 };
enum { FETCHED_AHEAD = 4096 }; /* bytes: one row out of cache waits for memory, which the processor alone fetches late */

/* A piece of a product: SIDE panels at most, and blocks [block, end), with their codes as they stand or unpacked. */
struct piece {
    const struct panel_task *t;
    int64_t panel, block, end;
    const uint8_t *lines; /* of the first panel and block */
    int64_t panel_bytes, block_bytes;
    int more, last;       /* whether totals hold the sums of earlier pieces, and whether outputs are written */
    const int64_t *sums;  /* of the codes of each row of x from `near` on; of whole rows alone */
    int64_t near;
    struct stream *streams; /* of masked panels, one each */
};

/* Sums of a row of x with the outputs of a panel: of products of segments, or of bytes. */
union totals {
    float floats[OUTPUTS];
    int32_t ints[OUTPUTS];
};
typedef union totals row_totals[SIDE];
typedef lanes some_floats[ROWS][SIDE][PARTS]; /* the same in registers */
typedef lanes_of_ints some_ints[ROWS][SIDE][PARTS];

/* Add the products of some quads of a block, R rows of x by P panels, to sums. */
INLINE void add_quads(
    some_ints sums, const struct piece *piece, int64_t n, int64_t block, const int bits,
    const int R, const int P, const int first, const int quads) {
    const uint8_t *lines = piece->lines + (block - piece->block) * piece->block_bytes;
    const int8_t *x = x_codes(&piece->t->x, n) + block * BLOCK_INPUTS;
    if (R == 1 && !first) EACH(line, bits) __builtin_prefetch(lines + line * LINE_BYTES + FETCHED_AHEAD);
    some_ints pairs;
    EACH(q, quads)
    EACH(part, PARTS) {
        words codes[SIDE];
        EACH(p, P) codes[p] = quad(lines + p * piece->panel_bytes, first + q, part, bits);
        EACH(i, R) {
            int32_t four;
            memcpy(&four, x + i * piece->t->x.stride + 4 * (first + q), 4);
            EACH(p, P) add_quad(&sums[i][p][part], &pairs[i][p][part], q, codes[p], four, bits);
        }
    }
}

/* The same for a block of a masked panel, as it is stored, and one row of x. */
INLINE void add_masked_block(some_ints sums, const struct piece *piece, int64_t n, int64_t block, const int bits) {
    const struct panels *w = &piece->t->w;
    const int8_t *x = x_codes(&piece->t->x, n) + block * BLOCK_INPUTS;
    uint8_t zeros[OUTPUTS];
    union line lines[QUADS];
    const uint8_t *codes = w->lines + piece->streams->at;
    EACH(line, 4) __builtin_prefetch(codes + line * LINE_BYTES + FETCHED_AHEAD);
    __builtin_prefetch(w->masks.bits + (piece->panel * w->blocks + block + MASKS_AHEAD) * BLOCK_INPUTS);
    const uint8_t *absent = absent_codes(w, piece->panel, block, zeros);
    masked_block(w, piece->panel, block, piece->streams, absent, lines, stored_bits(bits) ? bits : w->bits);
    lanes_of_ints some[FLIGHTS][PARTS]; /* so that products need not wait for each other */
    EACH(f, FLIGHTS) EACH(part, PARTS) some[f][part] = every(0);
    EACH(q, QUADS) {
        int32_t four;
        memcpy(&four, x + 4 * q, 4);
        lanes_of_ints *to = some[q % FLIGHTS];
        EACH(part, PARTS) to[part] = add_products(to[part], lines[q].part[part], four, is_wide(bits) ? WIDE : NARROW);
    }
    EACH(f, FLIGHTS) EACH(part, PARTS) sums[0][0][part] += some[f][part];
}

INLINE void add_block(
    some_ints sums, const struct piece *piece, int64_t n, int64_t block, const int bits,
    const int R, const int P) {
    if (bits & MASKED) add_masked_block(sums, piece, n, block, bits - MASKED);
    else add_quads(sums, piece, n, block, bits, R, P, 0, QUADS);
}

/* Sums of the codes of the blocks of a piece, times a factor. */
INLINE void block_sums(int32_t sums[DEPTH], const struct piece *piece, int64_t n, int factor) {
    const int64_t blocks = piece->end - piece->block;
#if LANES == 16
    const __m512i halves = _mm512_maskz_loadu_epi32((1u << blocks) - 1, x_halves(&piece->t->x, n) + 2 * piece->block);
    _mm512_storeu_si512(sums, _mm512_madd_epi16(halves, _mm512_set1_epi16((int16_t)factor)));
#else
    for (int64_t b = 0; b < blocks; b++) sums[b] = factor * x_sum(&piece->t->x, n, piece->block + b);
#endif
}

/* The sum of the codes of a row. */
static int64_t row_sum(const struct rounded *x, int64_t n) {
    int64_t sum = 0, b = 0;
#if LANES == 16
    __m512i sums = _mm512_setzero_si512(); /* of two halves, at most 4,064 each: 32 bits hold 500,000 of them */
    for (; b + 16 <= x->blocks; b += 16) {
        const __m512i halves = _mm512_loadu_si512(x_halves(x, n) + 2 * b);
        sums = _mm512_add_epi32(sums, _mm512_madd_epi16(halves, _mm512_set1_epi16(1)));
    }
    sum = _mm512_reduce_add_epi32(sums);
#endif
    for (; b < x->blocks; b++) sum += x_sum(x, n, b);
    return sum;
}

/* What a segment's sums start from, so that they count from the code of zero: its number times the sum of x. */
INLINE void sum_x(int32_t sums[ROWS][DEPTH], const struct piece *piece, int64_t n, int factor, const int R) {
    const int64_t blocks = piece->end - piece->block, segment = piece->t->segment_blocks;
    EACH(i, R) {
        block_sums(sums[i], piece, n + i, factor);
        if (segment > 1)
            for (int64_t b = 0; b < blocks; b++)
                if (b % segment) sums[i][b - b % segment] += sums[i][b];
    }
}

/* ---- what becomes of sums ---- */

/* Outputs that a part of a panel really has; numbers of which only so many are there. */
INLINE int64_t outputs_of(const struct panels *w, int64_t panel, int part) {
    return w->outputs - panel * OUTPUTS - part * LANES;
}
INLINE lanes load_some(const float *x, int64_t n) {
    if (n >= LANES) return load(x);
    float some[LANES] = {0};
    for (int64_t i = 0; i < n; i++) some[i] = x[i];
    return load(some);
}
INLINE void store_some(float *x, lanes value, int64_t n) {
    float some[LANES];
    if (n >= LANES) return store(x, value);
    store(some, value);
    for (int64_t i = 0; i < n; i++) x[i] = some[i];
}

INLINE lanes bias_of(const struct panel_task *t, int64_t panel, int part) {
    const int64_t first = panel * OUTPUTS + part * LANES;
    return t->bias ? load_some(t->bias + first, t->w.outputs - first) : all(0);
}
INLINE void put(const struct panel_task *t, int64_t n, int64_t panel, int part, lanes y) {
    const int64_t first = panel * OUTPUTS + part * LANES;
    store_some(t->y + n * t->w.outputs + first, y, t->w.outputs - first);
}

INLINE void begin_floats(some_floats y, const struct piece *piece, const row_totals *totals, const int R, const int P) {
    if (piece->more) {
        EACH(i, R) EACH(p, P) EACH(part, PARTS) y[i][p][part] = load(totals[i][p].floats + part * LANES);
    } else {
        EACH(i, R) EACH(p, P) EACH(part, PARTS) y[i][p][part] = all(0);
    }
}

/* Write outputs, or keep sums until the next piece. */
INLINE void end_floats(
    const some_floats y, const struct piece *piece, int64_t n, row_totals *totals, const int R, const int P) {
    if (!piece->last) {
        EACH(i, R) EACH(p, P) EACH(part, PARTS) store(totals[i][p].floats + part * LANES, y[i][p][part]);
        return;
    }
    EACH(p, P) EACH(part, PARTS) {
        const lanes bias = bias_of(piece->t, piece->panel + p, part);
        EACH(i, R) put(piece->t, n + i, piece->panel + p, part, y[i][p][part] + bias);
    }
}

/* The same of sums of whole rows: counted from the code of zero, times both scales. */
INLINE void end_ints(
    const some_ints sums, const struct piece *piece, int64_t n, row_totals *totals, const int R, const int P) {
    const struct panel_task *t = piece->t;
    if (!piece->last) {
        EACH(i, R) EACH(p, P) EACH(part, PARTS) store_ints(totals[i][p].ints + part * LANES, sums[i][p][part]);
        return;
    }
    EACH(p, P) EACH(part, PARTS) {
        const int64_t panel = piece->panel + p;
        const lanes bias = bias_of(t, panel, part), scales = group_scales(&t->w, panel, 0, part);
        const lanes_of_ints zeros = t->w.zeros ? group_zeros(&t->w, panel, 0, part) : every(t->w.zero);
        const lanes_of_ints codes = zeros - every(shift_of(unpacked(&t->w)));
        EACH(i, R) {
            const lanes_of_ints steps = sums[i][p][part] - codes * (int32_t)piece->sums[n + i - piece->near];
            put(t, n + i, panel, part, floats(steps) * (x_scales(&t->x, n + i)[0] * scales) + bias);
        }
    }
}

/* What the sums of a block start from: `factors` of each output times the sum of the codes of x. */
INLINE lanes_of_ints start_of(const int16_t *halves, lanes_of_ints factors) {
#if LANES == 16
    int32_t both;
    memcpy(&both, halves, sizeof both);
    const lanes_of_ints twice = (factors & 0xffff) | factors << 16;
    return (lanes_of_ints)_mm512_madd_epi16(_mm512_set1_epi32(both), (__m512i)twice);
#else
    return factors * (halves[0] + halves[1]);
#endif
}

/* Add R rows of x by P panels, with scales for groups: segment after segment. */
INLINE void grouped_tile(
    const struct piece *piece, int64_t n, row_totals *totals, const int bits, const int R, const int P) {
    const struct panel_task *t = piece->t;
    const struct panels *w = &t->w;
    int32_t starts[ROWS][DEPTH];
    sum_x(starts, piece, n, w->zeros ? -1 : shift_of(bits) - w->zero, R);
    some_floats y;
    begin_floats(y, piece, totals, R, P);
    const int64_t group_blocks = w->group_blocks ? w->group_blocks : piece->end;
    int64_t group = piece->block / group_blocks, next = (group + 1) * group_blocks;
    for (int64_t first = piece->block; first < piece->end; first += t->segment_blocks) {
        if (first == next) group++, next += group_blocks;
        some_ints sums;
        EACH(i, R) EACH(p, P) EACH(part, PARTS) sums[i][p][part] = every(starts[i][first - piece->block]);
        if (w->zeros)
            EACH(p, P) EACH(part, PARTS) {
                const lanes_of_ints zeros = group_zeros(w, piece->panel + p, group, part) - every(shift_of(bits));
                EACH(i, R) sums[i][p][part] *= zeros;
            }
        for (int64_t block = first; block < smaller(first + t->segment_blocks, piece->end); block++)
            add_block(sums, piece, n, block, bits, R, P);
        EACH(p, P) EACH(part, PARTS) {
            const lanes scales = group_scales(w, piece->panel + p, group, part);
            EACH(i, R) y[i][p][part] += floats(sums[i][p][part]) * (scales * x_scales(&t->x, n + i)[first]);
        }
    }
    end_floats(y, piece, n, totals, R, P);
}

/* Add R rows of x by P panels, with one scale a row on both sides: whole numbers alone. */
INLINE void whole_tile(
    const struct piece *piece, int64_t n, row_totals *totals, const int bits, const int R, const int P) {
    some_ints sums;
    if (piece->more) {
        EACH(i, R) EACH(p, P) EACH(part, PARTS) sums[i][p][part] = load_ints(totals[i][p].ints + part * LANES);
    } else {
        EACH(i, R) EACH(p, P) EACH(part, PARTS) sums[i][p][part] = every(0);
    }
    for (int64_t block = piece->block; block < piece->end; block++) add_block(sums, piece, n, block, bits, R, P);
    end_ints(sums, piece, n, totals, R, P);
}

/* Add R rows of x by P panels, with scales of two levels: `quads` quads share one. */
INLINE void two_level_tile(
    const struct piece *piece, int64_t n, row_totals *totals, const int bits, const int R, const int P,
    const int quads) {
    const struct panels *w = &piece->t->w;
    const int whole = quads == QUADS; /* blocks, from which something is taken away; or halves of them */
    float taken[ROWS][DEPTH];         /* how often: the sum of x in a block */
    for (int64_t b = 0; whole && b < piece->end - piece->block; b++)
        EACH(i, R) taken[i][b] = x_scales(&piece->t->x, n + i)[piece->block + b] * x_sum(&piece->t->x, n + i, piece->block + b);
    some_floats y;
    begin_floats(y, piece, totals, R, P);
    for (int64_t block = piece->block; block < piece->end; block++)
        EACH(half, QUADS / quads) {
            const int64_t group = whole ? block : 2 * block + half;
            some_ints sums;
            EACH(i, R) {
                const int32_t start = whole ? 0 : -32 * x_halves(&piece->t->x, n + i)[group];
                EACH(p, P) EACH(part, PARTS) sums[i][p][part] = every(start);
            }
            add_quads(sums, piece, n, block, bits, R, P, half * quads, quads);
            EACH(p, P) EACH(part, PARTS) {
                const int64_t at = ((piece->panel + p) * w->groups + group) * OUTPUTS + part * LANES;
                const uint16_t *super = w->supers + (piece->panel + p) * w->supers_of_panel * OUTPUTS + part * LANES;
                super += block / 8 * (whole ? 2 : 1) * OUTPUTS;
                const lanes_of_ints steps = ints((const uint8_t *)w->scales + at);
                const lanes scales = of_halves(super) * floats(whole ? steps : steps - every(128));
                EACH(i, R) y[i][p][part] += floats(sums[i][p][part]) * (scales * x_scales(&piece->t->x, n + i)[block]);
                if (whole) {
                    const lanes least = of_halves(super + OUTPUTS) * floats(ints(w->zeros + at));
                    EACH(i, R) y[i][p][part] -= least * taken[i][block - piece->block];
                }
            }
        }
    end_floats(y, piece, n, totals, R, P);
}
#define q4_k_tile(...) two_level_tile(__VA_ARGS__, QUADS)
#define q6_k_tile(...) two_level_tile(__VA_ARGS__, QUADS / 2)

/* Tiles for codes that stand in bytes, of so many rows and panels as there are. */
#define TILE(kind, bits, R, P) \
    case 2 * R + P: kind##_tile(piece, n, totals, bits, R, P); break;
#if LANES == 16
#define SIDES(kind, bits, R) TILE(kind, bits, R, 1) TILE(kind, bits, R, 2)
#define TILES(kind, bits)                                                         \
    SIDES(kind, bits, 1) SIDES(kind, bits, 2) SIDES(kind, bits, 3) \
    SIDES(kind, bits, 4) SIDES(kind, bits, 5) SIDES(kind, bits, 6)
#elif LANES == 8
#define TILES(kind, bits) TILE(kind, bits, 1, 1) TILE(kind, bits, 2, 1) TILE(kind, bits, 3, 1) TILE(kind, bits, 4, 1)
#else
#define TILES(kind, bits) TILE(kind, bits, 1, 1)
#endif
#define RUNNER(kind, bits)                                                                                           \
    static void kind##_##bits(const struct piece *piece, int64_t n, row_totals *totals, int64_t rows, int64_t side) { \
        switch (2 * rows + side) { TILES(kind, bits) }                                                               \
    }
RUNNER(grouped, NIBBLES)
RUNNER(grouped, NARROW)
RUNNER(grouped, WIDE)
RUNNER(whole, NIBBLES)
RUNNER(whole, NARROW)
RUNNER(whole, WIDE)
RUNNER(q4_k, NIBBLES)
RUNNER(q6_k, NARROW)

#define OF_CODES(kind) \
    (unpacked(w) == WIDE ? kind##_WIDE : unpacked(w) == NARROW ? kind##_NARROW : kind##_NIBBLES)

/* One row and one panel, for codes as they are stored: nothing is written but the sums. */
#define MASKED_DIRECT(kind)                                                                        \
    static void kind##_masked(const struct piece *piece, int64_t n, row_totals *totals) {          \
        if (piece->t->w.bits == WIDE) kind##_tile(piece, n, totals, MASKED + WIDE, 1, 1);          \
        else if (piece->t->w.tabled) kind##_tile(piece, n, totals, MASKED + TABLED, 1, 1);         \
        else if (piece->t->w.bits == 4) kind##_tile(piece, n, totals, MASKED + 4, 1, 1);           \
        else kind##_tile(piece, n, totals, MASKED + NARROW, 1, 1);                                 \
    }
MASKED_DIRECT(grouped)
MASKED_DIRECT(whole)
static void two_level_direct(const struct piece *piece, int64_t n, row_totals *totals) {
    if (piece->t->w.zeros) q4_k_tile(piece, n, totals, 4, 1, 1);
    else q6_k_tile(piece, n, totals, 6, 1, 1);
}

/* Unpack a piece's codes to one in each byte. */
INLINE void unpack_lines(
    const struct panels *w, const uint8_t *lines, int64_t blocks, uint8_t *room, const int bits) {
    for (int64_t block = 0; block < blocks; block++, lines += stored_bits(bits) * LINE_BYTES, room += QUADS * LINE_BYTES)
        EACH(q, QUADS) EACH(part, PARTS) {
            const words codes = quad(lines, q, part, stored_bits(bits));
            *(words *)(room + q * LINE_BYTES + part * 4 * LANES) = bits & TABLED ? from_table(codes, w->table) : codes;
        }
}

static void unpack_blocks(const struct panels *w, const uint8_t *lines, int64_t blocks, uint8_t *room) {
    switch (w->bits + (w->tabled ? TABLED : 0)) {
    case 2: unpack_lines(w, lines, blocks, room, 2); break;
    case 3: unpack_lines(w, lines, blocks, room, 3); break;
    case 4: unpack_lines(w, lines, blocks, room, 4); break;
    case 5: unpack_lines(w, lines, blocks, room, 5); break;
    case 6: unpack_lines(w, lines, blocks, room, 6); break;
    case 7: unpack_lines(w, lines, blocks, room, 7); break;
    default: unpack_lines(w, lines, blocks, room, TABLED + 4);
    }
}

/* Put the codes of masked panels in their places. */
static void expand_panel(const struct piece *piece, int64_t p, uint8_t *room) {
    const struct panels *w = &piece->t->w;
    for (int64_t block = piece->block; block < piece->end; block++, room += QUADS * LINE_BYTES) {
        uint8_t zeros[OUTPUTS];
        const uint8_t *absent = absent_codes(w, piece->panel + p, block, zeros);
        masked_block(w, piece->panel + p, block, piece->streams + p, absent, (union line *)room, w->bits);
    }
}

static void unpack_piece(struct piece *piece, int64_t side, uint8_t *room) {
    const int64_t blocks = piece->end - piece->block;
    for (int64_t p = 0; p < side; p++) {
        const uint8_t *lines = piece->lines + p * piece->panel_bytes;
        uint8_t *to = room + p * DEPTH * QUADS * LINE_BYTES;
        if (piece->streams) {
            expand_panel(piece, p, to);
            continue;
        }
        unpack_blocks(&piece->t->w, lines, blocks, to);
    }
    piece->lines = room, piece->block_bytes = QUADS * LINE_BYTES, piece->panel_bytes = DEPTH * piece->block_bytes;
}

/* Write the outputs of a panel whose sums 32 bits do not hold. */
static void put_wide(const struct panel_task *t, int64_t n, int64_t panel, const int64_t *sums, int64_t x_sum) {
    const struct panels *w = &t->w;
    const int64_t first = panel * OUTPUTS;
    for (int o = 0; o < smaller(OUTPUTS, w->outputs - first); o++) {
        const int zero = (w->zeros ? w->zeros[first + o] : w->zero) - shift_of(unpacked(w));
        const float scale = x_scales(&t->x, n)[0] * ((const float *)w->scales)[first + o];
        const float y = (float)(sums[o] - zero * x_sum) * scale;
        t->y[n * w->outputs + first + o] = t->bias ? y + t->bias[first + o] : y;
    }
}

#ifdef __AMX_INT8__
#include "panel_matrix.h"
#endif

/* Sums of rows of x, and those with the outputs of panels where 32 bits do not hold them. */
struct wide {
    int64_t x[NEAR];
    int64_t sums[NEAR][SIDE][OUTPUTS];
};

/* The outputs of panels [panel, panel + side) for some rows from `near` on, NEAR at most. */
static void near_rows(
    const struct panel_task *t, int64_t near, int64_t rows, int64_t panel, int64_t side, struct wide *wide,
    int64_t *set) {
    (void)set;
    const struct panels *w = &t->w;
    const int whole = !t->segment_blocks, bits = w->bits, two_level = !!w->supers;
    const int64_t blocks = whole ? w->blocks : (w->inputs + BLOCK_INPUTS - 1) / BLOCK_INPUTS;
    const int in_spans = whole && blocks > SPAN;
    uint8_t room[SIDE * DEPTH * QUADS * LINE_BYTES] __attribute__((aligned(64)));
    row_totals totals[NEAR] __attribute__((aligned(64)));
    if (in_spans) memset(wide->sums, 0, sizeof wide->sums);
    struct stream streams[SIDE] = {{0, 0}};
    const int masked = !!w->masks.bits;
    for (int64_t p = 0; masked && p < side; p++) streams[p] = stream_of(&w->masks, panel + p);
    for (int64_t block = 0; block < blocks; block += DEPTH) {
        struct piece piece = {
            .t = t, .panel = panel, .block = block, .end = smaller(block + DEPTH, blocks),
            .lines = w->lines + (panel * w->blocks + block) * bits * LINE_BYTES,
            .panel_bytes = w->blocks * bits * LINE_BYTES, .block_bytes = bits * LINE_BYTES,
            .more = in_spans ? block % SPAN > 0 : block > 0, .last = !in_spans && block + DEPTH >= blocks,
            .sums = wide->x, .near = near, .streams = masked ? streams : NULL};
        if (t->x.n == 1 && (two_level || masked)) {
            (two_level ? two_level_direct : whole ? whole_masked : grouped_masked)(&piece, near, totals);
#ifdef __AMX_INT8__
        } else if (t->x.n >= MATRIX_ROWS && !two_level && !masked) {
            matrix_piece(&piece, near, rows, side, totals, room, set);
#endif
        } else {
            if (bits != WIDE || masked) unpack_piece(&piece, side, room);
            for (int64_t i = 0, some; i < rows; i += some) {
                some = smaller(ROWS, rows - i);
                if (two_level) (w->zeros ? q4_k_NIBBLES : q6_k_NARROW)(&piece, near + i, totals + i, some, side);
                else if (whole) OF_CODES(whole)(&piece, near + i, totals + i, some, side);
                else OF_CODES(grouped)(&piece, near + i, totals + i, some, side);
            }
        }
        if (in_spans && (piece.end % SPAN == 0 || piece.end == blocks))
            for (int64_t i = 0; i < rows; i++)
                for (int64_t p = 0; p < side; p++)
                    for (int o = 0; o < OUTPUTS; o++) wide->sums[i][p][o] += totals[i][p].ints[o];
    }
    for (int64_t p = 0; masked && p < side; p++)
        if (streams[p].at != streams[p].end) note_bad(&w->masks, panel + p);
    for (int64_t i = 0; i < rows && in_spans; i++)
        for (int64_t p = 0; p < side; p++) put_wide(t, near + i, panel + p, wide->sums[i][p], wide->x[i]);
}

#include "panel_blocks.h"
#include "panel_row.h"

/* Rows [row, end) by panels [first, last). */
static void part_of_product(const struct panel_task *t, int64_t row, int64_t end, int64_t first, int64_t last) {
    const int64_t side = t->x.n == 1 ? 1 : SIDE;
    for (int64_t panel = first; t->w.inputs == 0 && panel < last; panel++)
        for (int64_t n = row; n < end; n++) EACH(part, PARTS) put(t, n, panel, part, bias_of(t, panel, part));
    struct wide wide;
    int64_t set = 0; /* rows that matrix instructions take */
    for (int64_t near = row; near < end; near += NEAR) {
        const int64_t rows = smaller(NEAR, end - near);
        for (int64_t i = 0; !t->segment_blocks && i < rows; i++) wide.x[i] = row_sum(&t->x, near + i);
        for (int64_t panel = first; panel < last; panel += side)
            near_rows(t, near, rows, panel, smaller(side, last - panel), &wide, &set);
    }
#ifdef __AMX_INT8__
    if (set) _tile_release();
#endif
}

static void product(const void *task, int64_t first, int64_t last) {
    const struct panel_task *t = task;
    if (t->w.columns) return blocks_product(t, first, last);
    if (t->x.n == 1 && !t->w.masks.bits && !t->w.supers && (t->segment_blocks || t->w.inputs <= SPAN * BLOCK_INPUTS))
        return row_product(t, first, last);
    part_of_product(t, 0, t->x.n, first, last);
}

static void product_by_rows(const void *task, int64_t first, int64_t last) {
    const struct panel_task *t = task;
    part_of_product(t, first, last, 0, (t->w.outputs + OUTPUTS - 1) / OUTPUTS);
}

/* ---- rounding ---- */

enum { HALF = BLOCK_INPUTS / 2 };

INLINE int16_t sum_of_half(const int8_t *codes) {
    int32_t sum = 0;
    for (int i = 0; i < HALF; i++) sum += codes[i];
    return (int16_t)sum;
}

static void sums_of_halves(const int8_t *codes, int64_t halves, int16_t *sums) {
    int64_t half = 0;
#if LANES == 16
    for (; half + 4 <= halves; half += 4) {
        const __m512i ones = _mm512_set1_epi8(1), all = _mm512_loadu_si512(codes + half * HALF);
        __m512i fours = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, all);
        fours = _mm512_add_epi32(fours, _mm512_shuffle_epi32(fours, 0xb1));
        fours = _mm512_add_epi32(fours, _mm512_shuffle_epi32(fours, 0x4e));
        const __m128i found = _mm512_castsi512_si128(_mm512_maskz_compress_epi32(0x1111, fours));
        _mm_storel_epi64((__m128i *)(sums + half), _mm_packs_epi32(found, found));
    }
#endif
    for (; half < halves; half++) sums[half] = sum_of_half(codes + half * HALF);
}

/* Round a block by its own scale, as `round_group` does, and add up its halves. */
INLINE void round_block(const float *x, int8_t *codes, float *scale, int16_t *sums) {
#if LANES == 16
    const __m512 low = _mm512_loadu_ps(x), high = _mm512_loadu_ps(x + 16);
    const __m512i size = _mm512_castps_si512(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
    const int32_t bits = _mm512_reduce_max_epi32(size);
    float largest;
    memcpy(&largest, &bits, 4);
    if (largest >= 0x1p-120f && largest < INFINITY && !_mm512_cmp_ps_mask(low, high, _CMP_UNORD_Q)) {
        const __m512 inverse = _mm512_set1_ps(127 / largest);
        const __m512i first = _mm512_cvtps_epi32(low * inverse), second = _mm512_cvtps_epi32(high * inverse);
        _mm_storeu_si128((__m128i *)codes, _mm512_cvtepi32_epi8(first));
        _mm_storeu_si128((__m128i *)(codes + 16), _mm512_cvtepi32_epi8(second));
        *scale = largest / 127;
        sums[0] = (int16_t)_mm512_reduce_add_epi32(first), sums[1] = (int16_t)_mm512_reduce_add_epi32(second);
        return;
    }
#endif
    *scale = round_group(x, BLOCK_INPUTS, -1, codes);
    sums[0] = sum_of_half(codes), sums[1] = sum_of_half(codes + HALF);
}

static void round_rows(const void *task, int64_t first, int64_t last) {
    const struct round_task *t = task;
    const int64_t used = (t->inputs + BLOCK_INPUTS - 1) / BLOCK_INPUTS;
    for (int64_t n = first; n < last; n++) {
        const float *x = t->x + n * t->inputs;
        int8_t *codes = t->rows + n * t->stride;
        float *scales = (float *)(codes + t->blocks * BLOCK_INPUTS);
        int16_t *sums = (int16_t *)(scales + t->blocks);
        memset(codes + t->inputs, 0, t->stride - t->inputs);
        int64_t b = 0;
        if (!t->group) {
            const float scale = round_group(x, t->inputs, t->given, codes);
            for (int64_t u = 0; u < used; u++) scales[u] = scale;
        } else {
            const int64_t whole = t->given < 0 ? t->inputs / BLOCK_INPUTS : 0;
            for (; b < whole; b++) round_block(x + b * BLOCK_INPUTS, codes + b * BLOCK_INPUTS, scales + b, sums + 2 * b);
            for (int64_t u = b; u < used; u++)
                scales[u] = round_group(
                    x + u * BLOCK_INPUTS, smaller(BLOCK_INPUTS, t->inputs - u * BLOCK_INPUTS), t->given,
                    codes + u * BLOCK_INPUTS);
        }
        sums_of_halves(codes + b * BLOCK_INPUTS, 2 * (t->blocks - b), sums + 2 * b);
    }
}

const struct panels_kernels PER_SET(panels_kernels) = {.round = round_rows, .product = product, .product_by_rows = product_by_rows};
