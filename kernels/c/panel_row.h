/* One row of x by panels, whose codes are used as they are stored. Included by panels.c. A panel is over so soon that little
   may stand between its products; what an output sums up, and in which order, is what the tiles of many rows do. */

/* Sums that take turns, so that a product need not wait for the one before it. */
enum { TURNS = LANES == 4 ? 1 : 2 };

/* Add the products of a block, and what its codes count from, to sums. */
INLINE void add_row_block(
    lanes_of_ints sums[TURNS][PARTS], const lanes_of_ints factors[PARTS], const uint8_t *lines, const uint8_t *table,
    const int8_t *x, const int16_t *halves, const int bits) {
    EACH(part, PARTS) sums[TURNS - 1][part] += start_of(halves, factors[part]);
    EACH(line, stored_bits(bits)) __builtin_prefetch(lines + line * LINE_BYTES + FETCHED_AHEAD);
    lanes_of_ints pairs[PARTS];
    EACH(q, QUADS) {
        int32_t four;
        memcpy(&four, x + 4 * q, 4);
        EACH(part, PARTS) {
            words codes = quad(lines, q, part, stored_bits(bits));
            if (bits & TABLED) codes = from_table(codes, table);
            add_quad(&sums[q % TURNS][part], &pairs[part], q, codes, four, bits);
        }
    }
}
INLINE lanes_of_ints sum_of_turns(lanes_of_ints sums[TURNS][PARTS], int part) {
    EACH(turn, TURNS - 1) sums[TURNS - 1][part] += sums[turn][part];
    return sums[TURNS - 1][part];
}

/* What stands together is done together: a block is a group, whose scales are halves and whose zero is one for all. */
INLINE void row_panel_of_blocks(const struct panel_task *t, int64_t panel, const int bits) {
    const struct panels *w = &t->w;
    const int64_t blocks = (w->inputs + BLOCK_INPUTS - 1) / BLOCK_INPUTS;
    const int64_t block_bytes = stored_bits(bits) * LINE_BYTES;
    const uint8_t *lines = w->lines + panel * w->blocks * block_bytes;
    const uint16_t *scales = (const uint16_t *)w->scales + panel * w->groups * OUTPUTS;
    const int8_t *x = x_codes(&t->x, 0);
    const float *x_scale = x_scales(&t->x, 0);
    const int16_t *halves = x_halves(&t->x, 0);
    lanes_of_ints factors[PARTS];
    lanes y[PARTS];
    EACH(part, PARTS) factors[part] = every(shift_of(bits) - w->zero), y[part] = all(0);
    for (int64_t block = 0; block < blocks; block++) {
        lanes_of_ints sums[TURNS][PARTS];
        EACH(turn, TURNS) EACH(part, PARTS) sums[turn][part] = every(0);
        add_row_block(sums, factors, lines, w->table, x, halves, bits);
        EACH(part, PARTS)
            y[part] += floats(sum_of_turns(sums, part)) * (of_halves(scales + part * LANES) * x_scale[block]);
        lines += block_bytes, x += BLOCK_INPUTS, halves += 2, scales += OUTPUTS;
    }
    EACH(part, PARTS) put(t, 0, panel, part, y[part] + bias_of(t, panel, part));
}

/* Whatever shares scales; `whole`: all of a row does, on both sides. */
INLINE void row_panel(const struct panel_task *t, int64_t panel, const int bits, const int whole) {
    const struct panels *w = &t->w;
    const int64_t blocks = (w->inputs + BLOCK_INPUTS - 1) / BLOCK_INPUTS, segment = whole ? blocks : t->segment_blocks;
    const int64_t group_blocks = w->group_blocks ? w->group_blocks : blocks;
    const int64_t block_bytes = stored_bits(bits) * LINE_BYTES;
    const uint8_t *lines = w->lines + panel * w->blocks * block_bytes;
    const int8_t *x = x_codes(&t->x, 0);
    const float *x_scale = x_scales(&t->x, 0);
    const int16_t *halves = x_halves(&t->x, 0);
    lanes_of_ints factors[PARTS];
    lanes scales[PARTS], y[PARTS];
    EACH(part, PARTS) factors[part] = every(shift_of(bits) - w->zero), scales[part] = all(0);
    EACH(part, PARTS) y[part] = whole ? bias_of(t, panel, part) : all(0);
    for (int64_t first = 0, group = 0, next = 0; first < blocks; first += segment) {
        if (first == next) {
            EACH(part, PARTS) scales[part] = group_scales(w, panel, group, part);
            if (w->zeros) EACH(part, PARTS) factors[part] = every(shift_of(bits)) - group_zeros(w, panel, group, part);
            group++, next += group_blocks;
        }
        lanes_of_ints sums[TURNS][PARTS];
        EACH(turn, TURNS) EACH(part, PARTS) sums[turn][part] = every(0);
        for (int64_t block = first; block < smaller(first + segment, blocks); block++) {
            add_row_block(sums, factors, lines, w->table, x, halves, bits);
            lines += block_bytes, x += BLOCK_INPUTS, halves += 2;
        }
        EACH(part, PARTS) y[part] += floats(sum_of_turns(sums, part)) * (scales[part] * x_scale[first]);
    }
    EACH(part, PARTS) put(t, 0, panel, part, whole ? y[part] : y[part] + bias_of(t, panel, part));
}

#define ROW_PANELS(bits)                                                                       \
    case bits:                                                                                 \
        for (int64_t panel = first; panel < last; panel++)                                     \
            if (of_blocks) row_panel_of_blocks(t, panel, bits);                                \
            else if (t->segment_blocks) row_panel(t, panel, bits, 0);                          \
            else row_panel(t, panel, bits, 1);                                                 \
        break;

/* The outputs of some panels for the row; sums of whole rows have to fit 32 bits. */
static void row_product(const struct panel_task *t, int64_t first, int64_t last) {
    const int of_blocks = t->segment_blocks == 1 && t->w.group_blocks == 1 && t->w.half_scales && !t->w.zeros;
    switch (t->w.bits + (t->w.tabled ? TABLED : 0)) {
        ROW_PANELS(2)
        ROW_PANELS(3)
        ROW_PANELS(4)
        ROW_PANELS(5)
        ROW_PANELS(6)
        ROW_PANELS(7)
        ROW_PANELS(WIDE)
        ROW_PANELS(TABLED + 4)
    }
}
