#include "quantized.h"

static void decode(const void *task, int64_t first, int64_t last) {
    const struct decode_task *t = task;
    struct run run;
    prepare(&run, &t->w);
    for (int64_t n = first; n < last; n++)
        for (int64_t i = 0; i < t->w.inputs; i += RUN) {
            open_run(&run, &t->w, t->rows ? t->rows[n] : t->start + n, i, smaller(i + RUN, t->w.inputs), DIRECT);
            decode_run(&run, t->out + n * t->w.inputs + i);
        }
}

/* Multiply a run by rows of x, each a `stride` after the other, and add to their sums. */
INLINE void multiply(const struct run *run, const float *x, int64_t stride, lanes *sums, const int rows) {
    lanes even[FEWEST], odd[FEWEST], values[BLOCK_LANES];
    for (int n = 0; n < rows; n++) even[n] = sums[n], odd[n] = all(0);
    for (int64_t b = 0; b * BLOCK < run->last - run->first; b++) {
        block_values(run, b, values);
        for (int n = 0; n < rows; n++)
            for (int l = 0; l < BLOCK_LANES; l += 2) {
                even[n] += values[l] * load(x + n * stride + b * BLOCK + l * LANES);
                odd[n] += values[l + 1] * load(x + n * stride + b * BLOCK + (l + 1) * LANES);
            }
    }
    for (int n = 0; n < rows; n++) sums[n] = even[n] + odd[n];
}

static void product(const void *task, int64_t first, int64_t last) {
    const struct product_task *t = task;
    struct run run;
    prepare(&run, &t->w);
    for (int64_t o = first; o < last; o++) {
        lanes sums[FEW];
        for (int64_t n = 0; n < t->n; n++) sums[n] = all(0);
        for (int64_t i = 0; i < t->w.inputs; i += RUN) {
            open_run(&run, &t->w, o, i, smaller(i + RUN, t->w.inputs), DIRECT);
            const float *x = t->x + i;
            int64_t n = 0;
            for (; n + FEWEST <= t->n; n += FEWEST) multiply(&run, x + n * t->x_stride, t->x_stride, sums + n, FEWEST);
            for (; n < t->n; n++) multiply(&run, x + n * t->x_stride, t->x_stride, sums + n, 1);
        }
        for (int64_t n = 0; n < t->n; n++) t->y[n * t->outputs + o] = sum_of_lanes(sums[n]);
    }
}

const struct quantized_kernels PER_SET(quantized_kernels) = {.decode = decode, .product = product};
