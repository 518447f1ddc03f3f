#include "low_rank.h"

enum { AT_ONCE = 4 };

/* The products of a row of w with AT_ONCE rows of x, which follow each other. */
static inline void dots(const float *w, const float *x, int64_t inputs, float *sums) {
    lanes sum[AT_ONCE];
    for (int n = 0; n < AT_ONCE; n++) sum[n] = all(0);
    int64_t i = 0;
    for (; i + LANES <= inputs; i += LANES)
        for (int n = 0; n < AT_ONCE; n++) sum[n] += load(w + i) * load(x + n * inputs + i);
    for (int n = 0; n < AT_ONCE; n++) sums[n] = sum_of_lanes(sum[n]);
    for (; i < inputs; i++)
        for (int n = 0; n < AT_ONCE; n++) sums[n] += w[i] * x[n * inputs + i];
}

static void factor(const void *task, int64_t first, int64_t last) {
    const struct factor_task *t = task;
    for (int64_t o = first; o < last; o++) {
        const float *w = t->w + o * t->inputs;
        int64_t n = 0;
        for (; n + AT_ONCE <= t->n; n += AT_ONCE) {
            float sums[AT_ONCE];
            dots(w, t->x + n * t->inputs, t->inputs, sums);
            for (int k = 0; k < AT_ONCE; k++) t->y[(n + k) * t->outputs + o] = sums[k];
        }
        for (; n < t->n; n++) t->y[n * t->outputs + o] = dot(w, t->x + n * t->inputs, t->inputs);
    }
}

const struct low_rank_kernels PER_SET(low_rank_kernels) = {.factor = factor};
