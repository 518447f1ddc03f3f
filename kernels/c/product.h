/* Products of small matrices that are already in cache, for kernels that need one inside. */
#ifndef MINISLM_PRODUCT_H
#define MINISLM_PRODUCT_H

#include "kernel.h"

/* Entry (i, l) of a matrix A whose rows are `row` and whose columns are `column` numbers apart: A or its transpose. */
struct strided {
    const float *start;
    int64_t row, column;
};

/* Registers of columns in a tile: as many as the registers of the processor hold, four rows of them. */
enum { PRODUCT_REGISTERS = LANES == 16 ? 4 : 2, MOST_ROWS_OF_PRODUCT = LANES == 16 ? 8 : 4 };

/* A tile of C = A B or, with `more`, C += A B: `rows` rows and `registers` registers of columns, held over all k. */
static inline __attribute__((always_inline)) void product_tile(struct strided a, const float *b, int64_t b_row, float *c,
                                                               int64_t c_row, int64_t k, int rows, int registers, int more) {
    lanes part[MOST_ROWS_OF_PRODUCT][PRODUCT_REGISTERS];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < registers; j++) part[i][j] = more ? load(c + i * c_row + j * LANES) : all(0);
    for (int64_t l = 0; l < k; l++) {
        lanes of_b[PRODUCT_REGISTERS];
        for (int j = 0; j < registers; j++) of_b[j] = load(b + l * b_row + j * LANES);
        for (int i = 0; i < rows; i++) {
            lanes of_a = all(a.start[i * a.row + l * a.column]);
            for (int j = 0; j < registers; j++) part[i][j] += of_a * of_b[j];
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < registers; j++) store(c + i * c_row + j * LANES, part[i][j]);
}

/* Columns of C that do not fill a register: one row at a time. */
static inline void product_rest(struct strided a, const float *b, int64_t b_row, float *restrict c, int64_t n, int64_t k,
                                int more) {
    for (int64_t j = 0; j < n && !more; j++) c[j] = 0;
    for (int64_t l = 0; l < k; l++)
        for (int64_t j = 0; j < n; j++) c[j] += a.start[l * a.column] * b[l * b_row + j];
}

/* `rows` rows of the product. */
static inline __attribute__((always_inline)) void product_rows(int64_t n, int64_t k, struct strided a, const float *b,
                                                               int64_t b_row, float *c, int64_t c_row, int rows, int more) {
    int64_t j = 0;
    for (; j + PRODUCT_REGISTERS * LANES <= n; j += PRODUCT_REGISTERS * LANES)
        product_tile(a, b + j, b_row, c + j, c_row, k, rows, PRODUCT_REGISTERS, more);
    for (; PRODUCT_REGISTERS > 2 && j + 2 * LANES <= n; j += 2 * LANES)
        product_tile(a, b + j, b_row, c + j, c_row, k, rows, 2, more);
    for (; j + LANES <= n; j += LANES) product_tile(a, b + j, b_row, c + j, c_row, k, rows, 1, more);
    for (int r = 0; j < n && r < rows; r++)
        product_rest((struct strided){a.start + r * a.row, a.row, a.column}, b + j, b_row, c + r * c_row + j, n - j, k, more);
}

static inline __attribute__((always_inline)) void any_product(int64_t m, int64_t n, int64_t k, struct strided a, const float *b,
                                                              int64_t b_row, float *c, int64_t c_row, int more) {
    int64_t i = 0;
    if (LANES == 16 && n <= 2 * LANES) /* so few registers would wait for each other in four rows */
        for (; i + 8 <= m; i += 8, a.start += 8 * a.row) product_rows(n, k, a, b, b_row, c + i * c_row, c_row, 8, more);
    for (; i + 4 <= m; i += 4, a.start += 4 * a.row) product_rows(n, k, a, b, b_row, c + i * c_row, c_row, 4, more);
    for (; i + 2 <= m; i += 2, a.start += 2 * a.row) product_rows(n, k, a, b, b_row, c + i * c_row, c_row, 2, more);
    for (; i < m; i++, a.start += a.row) product_rows(n, k, a, b, b_row, c + i * c_row, c_row, 1, more);
}

/* C += A B: (m, k) times (k, n). Rows of B and C are contiguous, and b_row and c_row numbers apart. Every entry of C is
   summed in the order of k, whatever m and n. */
static inline void add_product(int64_t m, int64_t n, int64_t k, struct strided a, const float *b, int64_t b_row, float *c,
                               int64_t c_row) {
    any_product(m, n, k, a, b, b_row, c, c_row, 1);
}

/* C = A B. */
static inline void set_product(int64_t m, int64_t n, int64_t k, struct strided a, const float *b, int64_t b_row, float *c,
                               int64_t c_row) {
    any_product(m, n, k, a, b, b_row, c, c_row, 0);
}

#endif
