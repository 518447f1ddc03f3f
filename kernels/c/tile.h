/* Products of float32 matrices: a tile of results is held in registers while rows of a panel pass by.

   A panel is PANEL columns of the right matrix, row after row, as in `minislm.ops.float_panels`. A result is a sum of sums
   over DEPTH terms, and each of these is added up one term after the other, whichever tile it is in: so a row of results
   depends neither on the rows beside it nor on the number of threads. */
#ifndef MINISLM_TILE_H
#define MINISLM_TILE_H
#include "kernel.h"

#define INLINED static inline __attribute__((always_inline))

enum {
    PANEL = 32,
    DEPTH = 256, /* rows of a panel that stay in the nearest cache: 32 KiB */
    PANEL_REGISTERS = PANEL / LANES,
    TILE_ROWS = LANES == 16 ? 12 : 6, /* with 2 registers of columns: what fits into 32, or into 16 registers */
    TILE_REGISTERS = 2,
    MOST_REGISTERS = 4,
    AHEAD = 16,
};

/* Entry (i, l) of the left matrix is a[i * row + l * column], and one of both is 1. */
struct left {
    const float *a;
    int64_t row, column;
};

/* Entry (l, j) of the right matrix is b[l * row + j * column], and one of both is 1. */
struct right {
    const float *b;
    int64_t row, column;
};

/* Columns of A, four at a time, as rows of B. */
static inline void transpose_four(const float *a, int64_t a_row, float *b, int64_t b_row) {
    const four a0 = load_four(a), a1 = load_four(a + a_row);
    const four a2 = load_four(a + 2 * a_row), a3 = load_four(a + 3 * a_row);
    const four low0 = __builtin_shufflevector(a0, a1, 0, 4, 1, 5), high0 = __builtin_shufflevector(a0, a1, 2, 6, 3, 7);
    const four low1 = __builtin_shufflevector(a2, a3, 0, 4, 1, 5), high1 = __builtin_shufflevector(a2, a3, 2, 6, 3, 7);
    store_four(b + 0 * b_row, __builtin_shufflevector(low0, low1, 0, 1, 4, 5));
    store_four(b + 1 * b_row, __builtin_shufflevector(low0, low1, 2, 3, 6, 7));
    store_four(b + 2 * b_row, __builtin_shufflevector(high0, high1, 0, 1, 4, 5));
    store_four(b + 3 * b_row, __builtin_shufflevector(high0, high1, 2, 3, 6, 7));
}

/* Copy k rows of `columns` columns of B into a panel; columns beyond them become zeros. */
static inline void fill_panel(const struct right *right, int64_t k, int64_t columns, float *panel) {
    const float *b = right->b;
    if (columns < PANEL) memset(panel, 0, k * PANEL * sizeof *panel);
    if (right->column == 1) {
        for (int64_t l = 0; l < k; l++, b += right->row, panel += PANEL)
            if (columns == PANEL)
                memcpy(panel, b, PANEL * sizeof *panel);
            else
                for (int64_t j = 0; j < columns; j++) panel[j] = b[j];
        return;
    }
    int64_t l = 0;
    for (; l + 4 <= k; l += 4) {
        int64_t j = 0;
        for (; j + 4 <= columns; j += 4) transpose_four(b + j * right->column + l, right->column, panel + l * PANEL + j, PANEL);
        for (; j < columns; j++)
            for (int64_t m = l; m < l + 4; m++) panel[m * PANEL + j] = b[j * right->column + m];
    }
    for (; l < k; l++)
        for (int64_t j = 0; j < columns; j++) panel[l * PANEL + j] = b[j * right->column + l];
}

/* Multiply `rows` rows of k numbers with `registers` registers of columns, whose panels lie `panel` numbers apart; store
   the results, or add them to what is there. What is constant in a call makes code of its own. */
INLINED void matmul_tile(struct left left, const float *b, int64_t panel, float *c, int64_t c_row, int64_t k, int more,
                         const int rows, const int registers, const int along) {
    lanes sum[TILE_ROWS][MOST_REGISTERS];
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < registers; j++) sum[i][j] = all(0);
    const int64_t row = along ? left.row : 1, column = along ? 1 : left.column;
    const float *a = left.a, *a4 = a + 4 * row, *a8 = a + 8 * row; /* so that few addresses serve all rows */
    for (int64_t l = 0; l < k; l++, a += column, a4 += column, a8 += column, b += PANEL) {
        if (!along) __builtin_prefetch(a + AHEAD * column); /* every column is on a page of its own */
        lanes of_b[MOST_REGISTERS];
#pragma GCC unroll 4
        for (int j = 0; j < registers; j++)
            of_b[j] = load(b + j / PANEL_REGISTERS * panel + j % PANEL_REGISTERS * LANES);
#pragma GCC unroll 12
        for (int i = 0; i < rows; i++) {
            const lanes of_a = all((i < 4 ? a : i < 8 ? a4 : a8)[i % 4 * row]);
#pragma GCC unroll 4
            for (int j = 0; j < registers; j++) sum[i][j] += of_a * of_b[j];
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < registers; j++) {
            float *to = c + i * c_row + j * LANES;
            store(to, more ? load(to) + sum[i][j] : sum[i][j]);
        }
}

/* A tile of which only the first `columns` columns are wanted. */
INLINED void matmul_edge(struct left left, const float *b, float *c, int64_t c_row, int64_t k, int more, int64_t columns,
                         const int rows, const int along) {
    float tile[TILE_ROWS * TILE_REGISTERS * LANES];
    matmul_tile(left, b, 0, tile, TILE_REGISTERS * LANES, k, 0, rows, TILE_REGISTERS, along);
    for (int i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) {
            const float sum = tile[i * TILE_REGISTERS * LANES + j];
            c[i * c_row + j] = more ? c[i * c_row + j] + sum : sum;
        }
}

/* `rows` rows, and the first `columns` columns of a panel. */
INLINED void matmul_rows(struct left left, const float *b, float *c, int64_t c_row, int64_t k, int more, int64_t columns,
                         const int rows, const int along) {
    for (; columns >= TILE_REGISTERS * LANES; columns -= TILE_REGISTERS * LANES) {
        matmul_tile(left, b, 0, c, c_row, k, more, rows, TILE_REGISTERS, along);
        b += TILE_REGISTERS * LANES, c += TILE_REGISTERS * LANES;
    }
    if (columns) matmul_edge(left, b, c, c_row, k, more, columns, rows, along);
}

/* m rows of C = A B or, with `more`, C += A B, for the first `columns` columns of a panel and k <= DEPTH. */
INLINED void matmul_panel_along(struct left left, const float *b, float *c, int64_t c_row, int64_t m, int64_t k, int more,
                                int64_t columns, const int along) {
    const int64_t row = along ? left.row : 1;
#define ROWS(rows) \
    for (; m >= rows; m -= rows, left.a += rows * row, c += rows * c_row) matmul_rows(left, b, c, c_row, k, more, columns, rows, along)
    ROWS(TILE_ROWS);
    if (TILE_ROWS > 8) ROWS(8);
    ROWS(4);
    ROWS(2);
    ROWS(1);
#undef ROWS
}

static inline void matmul_panel(struct left left, const float *b, float *c, int64_t c_row, int64_t m, int64_t k, int more,
                         int64_t columns) {
    if (left.column == 1)
        matmul_panel_along(left, b, c, c_row, m, k, more, columns, 1);
    else
        matmul_panel_along(left, b, c, c_row, m, k, more, columns, 0);
}
#endif
