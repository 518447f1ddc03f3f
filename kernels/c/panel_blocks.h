/* Products of panels of which only some blocks are stored, each with scales of its own. Included by panels.c.
   A tile has rows enough for their sums not to wait for each other; it takes a panel's blocks one after the other. */

/* Rows of x that a tile has at most, with as many sums and as many outputs in registers. */
enum { BLOCK_ROWS = LANES == 16 ? 12 : LANES == 8 ? 4 : 1 };

#define ROWS_OF(i, n) _Pragma("GCC unroll 12") for (int i = 0; i < (n); i++)

/* R rows of x, from the n-th on, by the blocks [first, end) of a panel. */
INLINE void blocks_tile(
    const struct panel_task *t, int64_t n, int64_t panel, int64_t first, int64_t end, const int bits, const int R) {
    const struct panels *w = &t->w;
    const int64_t stride = t->x.stride;
    lanes y[BLOCK_ROWS][PARTS];
    EACH(part, PARTS) {
        const lanes bias = bias_of(t, panel, part);
        ROWS_OF(i, R) y[i][part] = bias;
    }
    for (int64_t block = first; block < end; block++) {
        const int64_t column = w->columns[block];
        const uint8_t *lines = w->lines + block * w->bits * LINE_BYTES;
        uint8_t room[QUADS * LINE_BYTES] __attribute__((aligned(64)));
        if (R == 1) EACH(line, QUADS) __builtin_prefetch(lines + line * LINE_BYTES + FETCHED_AHEAD);
        if (bits != WIDE || w->tabled) unpack_blocks(w, lines, 1, room), lines = room;
        lanes_of_ints sums[BLOCK_ROWS][PARTS], pairs[BLOCK_ROWS][PARTS];
        EACH(part, PARTS) {
            const lanes_of_ints zeros = w->zeros ? group_zeros(w, 0, block, part) : every(w->zero);
            const int16_t *halves = x_halves(&t->x, n) + 2 * column;
            ROWS_OF(i, R) sums[i][part] = start_of(halves + i * (stride / 2), every(shift_of(bits)) - zeros);
        }
        const int8_t *x = x_codes(&t->x, n) + column * BLOCK_INPUTS, *x4 = x + 4 * stride, *x8 = x + 8 * stride;
        EACH(q, QUADS) EACH(part, PARTS) {
            const words codes = quad(lines, q, part, bits);
            ROWS_OF(i, R) { /* few addresses serve all rows */
                int32_t four;
                memcpy(&four, (i < 4 ? x : i < 8 ? x4 : x8) + i % 4 * stride + 4 * q, 4);
                add_quad(&sums[i][part], &pairs[i][part], q, codes, four, bits);
            }
        }
        const float *x_scale = x_scales(&t->x, n) + column;
        EACH(part, PARTS) {
            const lanes scales = group_scales(w, 0, block, part);
            ROWS_OF(i, R) y[i][part] += floats(sums[i][part]) * (scales * x_scale[i * (stride / 4)]);
        }
    }
    EACH(part, PARTS) ROWS_OF(i, R) put(t, n + i, panel, part, y[i][part]);
}

#define BLOCKS_TILE(rows)                                                        \
    for (; last - n >= rows && rows <= BLOCK_ROWS; n += rows)                    \
        if (unpacked(&t->w) == WIDE) blocks_tile(t, n, panel, first, end, WIDE, rows);        \
        else if (unpacked(&t->w) == NARROW) blocks_tile(t, n, panel, first, end, NARROW, rows); \
        else blocks_tile(t, n, panel, first, end, NIBBLES, rows)

/* Rows [n, last) by the blocks of a panel. */
static void blocks_rows(const struct panel_task *t, int64_t n, int64_t last, int64_t panel, int64_t first, int64_t end) {
    BLOCKS_TILE(12);
    BLOCKS_TILE(8);
    BLOCKS_TILE(4);
    BLOCKS_TILE(2);
    BLOCKS_TILE(1);
}

/* The outputs of some panels; those whose blocks do not lie in the matrix are noted. */
static void blocks_product(const struct panel_task *t, int64_t first, int64_t last) {
    const struct panels *w = &t->w;
    for (int64_t near = 0; near < t->x.n; near += NEAR)
        for (int64_t panel = first; panel < last; panel++) {
            const struct stream there = stream_of(&w->masks, panel);
            uint32_t most = 0; /* a negative column is a very large one */
            for (int64_t b = there.at; b < there.end; b++)
                most = (uint32_t)w->columns[b] > most ? (uint32_t)w->columns[b] : most;
            if (there.at == there.end || most < w->blocks)
                blocks_rows(t, near, smaller(near + NEAR, t->x.n), panel, there.at, there.end);
            else
                note_bad(&w->masks, panel);
        }
}
