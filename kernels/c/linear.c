#include "linear.h"

static void add(const void *task, int64_t first, int64_t last) {
    const struct add_task *t = task;
#pragma GCC ivdep
    for (int64_t i = first * t->width, end = smaller(last * t->width, t->n); i < end; i++) t->z[i] = t->x[i] + t->y[i];
}

static void add_bias(const void *task, int64_t first, int64_t last) {
    const struct rows_task *t = task;
    const int64_t o = t->o;
    for (int64_t n = first; n < last; n++)
#pragma GCC ivdep
        for (int64_t i = 0; i < o; i++) t->y[n * o + i] = t->x[n * o + i] + t->b[i];
}

static void scale(const void *task, int64_t first, int64_t last) {
    const struct rows_task *t = task;
    const int64_t o = t->o;
    for (int64_t n = first; n < last; n++)
#pragma GCC ivdep
        for (int64_t i = 0; i < o; i++) t->y[n * o + i] = t->x[n * o + i] * t->b[i];
}

const struct linear_kernels PER_SET(linear_kernels) = {.add = add, .add_bias = add_bias, .scale = scale};
