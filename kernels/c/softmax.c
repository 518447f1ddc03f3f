/* Each row stays in the nearest cache between its passes. */
#include "softmax.h"
#include "functions.h"

static void softmax(const void *task, int64_t first, int64_t last) {
    const struct softmax_task *t = task;
    const int64_t v = t->v;
    for (int64_t n = first; n < last; n++) {
        const float *x = t->x + n * v;
        float *y = t->y + n * v;
        float top = largest(x, v);
        float total = exponentials(x, top == -INFINITY ? 0 : top, y, v);
        float share = total == 0 ? 1 : 1 / total;
        for (int64_t i = 0; i < v; i++) y[i] *= share;
    }
}

static void softmax_backward(const void *task, int64_t first, int64_t last) {
    const struct softmax_task *t = task;
    const int64_t v = t->v;
    for (int64_t n = first; n < last; n++) {
        const float *dp = t->x + n * v, *p = t->p + n * v;
        float *restrict dx = t->y + n * v;
        float along = dot(dp, p, v);
        for (int64_t i = 0; i < v; i++) dx[i] = p[i] * (dp[i] - along);
    }
}

const struct softmax_kernels PER_SET(softmax_kernels) = {.softmax = softmax, .softmax_backward = softmax_backward};
