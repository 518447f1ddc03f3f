/* Products of small matrices that are already in cache, for kernels that need one inside. */
#ifndef MINISLM_PRODUCT_H
#define MINISLM_PRODUCT_H

#include "kernel.h"

/* Entry (i, l) of a matrix A whose rows are `row` and whose columns are `column` numbers apart: A or its transpose. */
struct strided {
    const float *start;
    int64_t row, column;
};

/* A tile of C += A B with `rows` rows and `registers` registers of columns, held in registers over all k. */
static inline __attribute__((always_inline)) void product_tile(struct strided a, const float *b, int64_t b_row, float *c,
                                                               int64_t c_row, int64_t k, int rows, int registers) {
    lanes part[4][2];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < registers; j++) part[i][j] = load(c + i * c_row + j * LANES);
    for (int64_t l = 0; l < k; l++) {
        lanes of_b[2];
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
static inline void product_rest(struct strided a, const float *b, int64_t b_row, float *restrict c, int64_t n, int64_t k) {
    for (int64_t l = 0; l < k; l++)
        for (int64_t j = 0; j < n; j++) c[j] += a.start[l * a.column] * b[l * b_row + j];
}

/* C += A B: (m, k) times (k, n). Rows of B and C are contiguous, and b_row and c_row numbers apart. Every entry of C is
   summed in the order of k, whatever m and n. */
static inline void add_product(int64_t m, int64_t n, int64_t k, struct strided a, const float *b, int64_t b_row, float *c,
                               int64_t c_row) {
    for (int64_t i = 0; i < m;) {
        int rows = m - i >= 4 ? 4 : 1;
        struct strided of_a = {a.start + i * a.row, a.row, a.column};
        float *of_c = c + i * c_row;
        int64_t j = 0;
        for (; j + 2 * LANES <= n; j += 2 * LANES)
            if (rows == 4)
                product_tile(of_a, b + j, b_row, of_c + j, c_row, k, 4, 2);
            else
                product_tile(of_a, b + j, b_row, of_c + j, c_row, k, 1, 2);
        for (; j + LANES <= n; j += LANES)
            if (rows == 4)
                product_tile(of_a, b + j, b_row, of_c + j, c_row, k, 4, 1);
            else
                product_tile(of_a, b + j, b_row, of_c + j, c_row, k, 1, 1);
        for (int r = 0; j < n && r < rows; r++)
            product_rest((struct strided){of_a.start + r * a.row, a.row, a.column}, b + j, b_row, of_c + r * c_row + j, n - j,
                         k);
        i += rows;
    }
}

#endif
