/* Products of panels by the matrix instructions of AMX: tiles of 16 rows of x, and 16 lines of a panel, make 16 x 16
   sums. Tile registers 0 to 3 hold sums, 4 and 5 rows of x, 6 and 7 lines. Included by panels.c. */
#include <immintrin.h>

/* Rows of a tile; rows of x from which on tiles are worth their while; segments that go from tiles to floats together;
   how far ahead codes of x are asked for. */
enum { TILE_ROWS = 16, MATRIX_ROWS = 8, BATCH = 4, NEXT = 2 * LINE_BYTES };

/* Set the tiles to so many rows of x, and `depth` inputs at a time: 64, or 32. */
static void set_tiles(int64_t rows, int64_t depth) {
    struct {
        uint8_t palette, start, zeros[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } tiles = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        tiles.row_bytes[i] = i == 4 || i == 5 ? depth : LINE_BYTES;
        tiles.rows[i] = i < 6 ? rows : depth / 4;
    }
    __asm__ volatile("ldtilecfg %0" : : "m"(tiles));
}

/* The same as whole_tile, for 16 rows or however many the tiles are set to, or for twice 16. */
INLINE void whole_matrix(const struct piece *piece, int64_t n, row_totals *totals, const int twice, const int P) {
    const int64_t stride = piece->t->x.stride, totals_stride = sizeof *totals, panel_bytes = piece->panel_bytes;
    const int8_t *x = x_codes(&piece->t->x, n) + piece->block * BLOCK_INPUTS, *x2 = x + TILE_ROWS * stride;
    row_totals *totals2 = totals + TILE_ROWS;
    const uint8_t *lines = piece->lines;
    _tile_loadd(0, totals[0], totals_stride);
    if (P == 2) _tile_loadd(1, totals[0] + 1, totals_stride);
    if (twice) _tile_loadd(2, totals2[0], totals_stride);
    if (twice && P == 2) _tile_loadd(3, totals2[0] + 1, totals_stride);
    for (int64_t block = piece->block; block < piece->end; block += 2) {
        for (int r = 0; r < TILE_ROWS; r++) __builtin_prefetch(x + r * stride + NEXT);
        if (twice)
            for (int r = 0; r < TILE_ROWS; r++) __builtin_prefetch(x2 + r * stride + NEXT);
        _tile_loadd(4, x, stride);
        _tile_loadd(6, lines, LINE_BYTES);
        _tile_dpbsud(0, 4, 6);
        if (P == 2) {
            _tile_loadd(7, lines + panel_bytes, LINE_BYTES);
            _tile_dpbsud(1, 4, 7);
        }
        if (twice) {
            _tile_loadd(5, x2, stride);
            _tile_dpbsud(2, 5, 6);
            if (P == 2) _tile_dpbsud(3, 5, 7);
        }
        x += 2 * BLOCK_INPUTS, x2 += 2 * BLOCK_INPUTS, lines += 2 * QUADS * LINE_BYTES;
    }
    _tile_stored(0, totals[0], totals_stride);
    if (P == 2) _tile_stored(1, totals[0] + 1, totals_stride);
    if (twice) _tile_stored(2, totals2[0], totals_stride);
    if (twice && P == 2) _tile_stored(3, totals2[0] + 1, totals_stride);
}

typedef int32_t tile_sums[TILE_ROWS][OUTPUTS] __attribute__((aligned(64)));

/* Sums of a segment, from signed codes: 16 rows by P panels. */
INLINE void segment_sums(const struct piece *piece, int64_t n, int64_t first, tile_sums *sums, const int P) {
    const int64_t stride = piece->t->x.stride, segment = piece->t->segment_blocks, step = smaller(segment, 2);
    const int64_t end = smaller(first + segment, piece->end);
    const int8_t *x = x_codes(&piece->t->x, n) + first * BLOCK_INPUTS;
    const uint8_t *lines = piece->lines + (first - piece->block) * QUADS * LINE_BYTES;
    _tile_zero(0);
    if (P == 2) _tile_zero(1);
    for (int64_t block = first; block < end; block += step) {
        _tile_loadd(4, x, stride);
        _tile_loadd(6, lines, LINE_BYTES);
        _tile_dpbssd(0, 4, 6);
        if (P == 2) {
            _tile_loadd(7, lines + piece->panel_bytes, LINE_BYTES);
            _tile_dpbssd(1, 4, 7);
        }
        x += step * BLOCK_INPUTS, lines += step * QUADS * LINE_BYTES;
    }
    _tile_stored(0, sums[0], LINE_BYTES);
    if (P == 2) _tile_stored(1, sums[1], LINE_BYTES);
}

/* What turns the sums of some segments into floats. */
struct batch {
    int64_t first; /* block */
    lanes scales[BATCH][SIDE];
    lanes_of_ints zeros[BATCH][SIDE];
    tile_sums sums[BATCH][SIDE];
};

INLINE void open_batch(struct batch *batch, const struct piece *piece, int64_t first, const int some, const int P) {
    const struct panels *w = &piece->t->w;
    batch->first = first;
    EACH(s, some) {
        const int64_t group = w->group_blocks ? (first + s * piece->t->segment_blocks) / w->group_blocks : 0;
        EACH(p, P) batch->scales[s][p] = group_scales(w, piece->panel + p, group, 0);
        if (w->zeros) EACH(p, P) batch->zeros[s][p] = group_zeros(w, piece->panel + p, group, 0) - every(128);
    }
}

/* Add some segments to the totals of rows [row, end); `corrected`: their sums count from 128. */
INLINE void add_batch(
    const struct batch *batch, const struct piece *piece, int64_t n, row_totals *totals, int64_t row, int64_t end,
    const int some, const int P, const int corrected) {
    const struct rounded *all_x = &piece->t->x;
    const int64_t segment = piece->t->segment_blocks;
    for (int64_t i = row; i < end; i++) {
        const float *x = x_scales(all_x, n + i) + batch->first;
        lanes y[SIDE];
        EACH(p, P) y[p] = load(totals[i][p].floats);
        EACH(s, some) {
            int32_t rows_sum = 0;
            if (corrected)
                for (int64_t b = s * segment; b < smaller((s + 1) * segment, piece->end - batch->first); b++)
                    rows_sum += x_sum(all_x, n + i, batch->first + b);
            EACH(p, P) {
                lanes_of_ints sum = load_ints(batch->sums[s][p][i]);
                if (corrected) sum -= batch->zeros[s][p] * rows_sum;
                y[p] += floats(sum) * (batch->scales[s][p] * x[s * segment]);
            }
        }
        EACH(p, P) store(totals[i][p].floats, y[p]);
    }
}

/* The same as grouped_tile, for as many rows as the tiles are set to; codes are signed bytes that count from zero, or,
   of asymmetric formats of 8 bits, from 128. While a batch of segments becomes floats, a quarter of its rows at a time,
   tiles work on the next batch, a segment at a time. */
INLINE void grouped_matrix(
    const struct piece *piece, int64_t n, row_totals *totals, int64_t rows, const int P, const int corrected) {
    const int64_t segment = piece->t->segment_blocks, end = (piece->end - piece->block + segment - 1) / segment;
    const int64_t full = end / BATCH * BATCH, quarter = (rows + BATCH - 1) / BATCH;
    struct batch batches[2];
    for (int64_t s = 0; s < full + BATCH; s += BATCH) {
        struct batch *next = &batches[s / BATCH % 2], *now = &batches[(s / BATCH + 1) % 2];
        if (s < full) open_batch(next, piece, piece->block + s * segment, BATCH, P);
        for (int i = 0; i < BATCH; i++) {
            if (s < full) segment_sums(piece, n, next->first + i * segment, next->sums[i], P);
            if (s) add_batch(now, piece, n, totals, i * quarter, smaller((i + 1) * quarter, rows), BATCH, P, corrected);
        }
    }
    for (int64_t s = full; s < end; s++) {
        open_batch(batches, piece, piece->block + s * segment, 1, P);
        segment_sums(piece, n, batches->first, batches->sums[0], P);
        add_batch(batches, piece, n, totals, 0, rows, 1, P, corrected);
    }
}

/* Unpack codes to signed bytes that count from zero, or, of asymmetric formats of 8 bits, from 128. */
INLINE void unpack_steps(const struct piece *piece, int64_t p, uint8_t *room, const int bits) {
    typedef uint8_t bytes __attribute__((vector_size(64)));
    const struct panels *w = &piece->t->w;
    const uint8_t *lines = piece->lines + p * piece->panel_bytes;
    bytes zeros = (bytes){0} + (uint8_t)w->zero;
    for (int64_t block = piece->block; block < piece->end; block++, lines += stored_bits(bits) * LINE_BYTES) {
        if (w->zeros && bits != WIDE) {
            const int64_t group = w->group_blocks ? block / w->group_blocks : 0;
            zeros = (bytes)(group_zeros(w, piece->panel + p, group, 0) * 0x01010101);
        }
        EACH(q, QUADS) {
            const words codes = quad(lines, q, 0, stored_bits(bits));
            *(bytes *)room = (bytes)(bits & TABLED ? from_table(codes, w->table) : codes) - zeros;
            room += LINE_BYTES;
        }
    }
}

static void unpack_steps_piece(struct piece *piece, int64_t side, uint8_t *room) {
    for (int64_t p = 0; p < side; p++) {
        uint8_t *to = room + p * DEPTH * QUADS * LINE_BYTES;
        switch (piece->t->w.bits + (piece->t->w.tabled ? TABLED : 0)) {
        case 2: unpack_steps(piece, p, to, 2); break;
        case 3: unpack_steps(piece, p, to, 3); break;
        case 4: unpack_steps(piece, p, to, 4); break;
        case 5: unpack_steps(piece, p, to, 5); break;
        case 6: unpack_steps(piece, p, to, 6); break;
        case 7: unpack_steps(piece, p, to, 7); break;
        case TABLED + 4: unpack_steps(piece, p, to, TABLED + 4); break;
        default: unpack_steps(piece, p, to, WIDE);
        }
    }
    piece->lines = room, piece->block_bytes = QUADS * LINE_BYTES, piece->panel_bytes = DEPTH * piece->block_bytes;
}

/* Write the outputs of panels from their totals. */
static void matrix_outputs(
    const struct piece *piece, int64_t near, int64_t rows, int64_t side, row_totals *totals, int whole) {
    for (int64_t p = 0; p < side; p++) {
        struct piece one = *piece;
        one.panel += p;
        for (int64_t i = 0; i < rows; i++) {
            some_ints sums = {{{load_ints(totals[i][p].ints)}}};
            some_floats y = {{{load(totals[i][p].floats)}}};
            if (whole) end_ints(sums, &one, near + i, 0, 1, 1);
            else end_floats(y, &one, near + i, 0, 1, 1);
        }
    }
}

/* A piece for some rows of x; `set` tells for how many rows the tiles are set. */
static void matrix_piece(
    struct piece *piece, int64_t near, int64_t rows, int64_t side, row_totals *totals, uint8_t *room, int64_t *set) {
    const int whole = !piece->t->segment_blocks, corrected = piece->t->w.zeros && piece->t->w.bits == WIDE;
    const int64_t depth = piece->t->segment_blocks == 1 ? BLOCK_INPUTS : 2 * BLOCK_INPUTS;
    if (!whole) unpack_steps_piece(piece, side, room);
    else if (piece->t->w.bits != WIDE) unpack_piece(piece, side, room);
    if (!piece->more) memset(totals, 0, rows * sizeof *totals);
    __asm__ volatile("" : : : "memory"); /* the compiler does not know that tiles are loaded from what was written */
    for (int64_t i = 0, some; i < rows; i += some) {
        some = smaller(rows - i, TILE_ROWS);
        if (*set != some) set_tiles(*set = some, depth);
        if (!whole) {
            if (corrected) {
                if (side == 2) grouped_matrix(piece, near + i, totals + i, some, 2, 1);
                else grouped_matrix(piece, near + i, totals + i, some, 1, 1);
            } else if (side == 2) {
                grouped_matrix(piece, near + i, totals + i, some, 2, 0);
            } else {
                grouped_matrix(piece, near + i, totals + i, some, 1, 0);
            }
        } else if (rows - i >= 2 * TILE_ROWS) {
            some = 2 * TILE_ROWS;
            if (side == 2) whole_matrix(piece, near + i, totals + i, 1, 2);
            else whole_matrix(piece, near + i, totals + i, 1, 1);
        } else {
            if (side == 2) whole_matrix(piece, near + i, totals + i, 0, 2);
            else whole_matrix(piece, near + i, totals + i, 0, 1);
        }
    }
    if (piece->last) matrix_outputs(piece, near, rows, side, totals, whole);
}
