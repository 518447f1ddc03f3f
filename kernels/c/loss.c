/* The forward stores two numbers a row; the backward computes the probabilities again, in place of N*V floats kept. */
#include "loss.h"
#include "functions.h"

enum { CHUNK = 512 }; /* exponentials that are kept only until they are added up */

static void cross_entropy(const void *task, int64_t first, int64_t last) {
    const struct cross_entropy_task *t = task;
    const int64_t v = t->v;
    for (int64_t n = first; n < last; n++) {
        const float *x = t->logits + n * v;
        float scratch[CHUNK], total = 0, top = largest(x, v), loss = 0;
        if (top == -INFINITY) top = 0;
        for (int64_t i = 0; i < v; i += CHUNK) total += exponentials(x + i, top, scratch, smaller(CHUNK, v - i));
        if (total == 0) total = 1;
        if (t->targets[n] != t->ignore) {
            loss = (1 - t->smoothing) * (logf(total) - (x[t->targets[n]] - top));
            if (t->smoothing) loss += t->smoothing * (logf(total) - (sum(x, v) / v - top));
        }
        t->top[n] = top, t->total[n] = total, t->loss[n] = loss;
    }
}

static void cross_entropy_backward(const void *task, int64_t first, int64_t last) {
    const struct cross_entropy_task *t = task;
    const int64_t v = t->v;
    const float even = t->share * t->smoothing / v;
    for (int64_t n = first; n < last; n++) {
        const float *x = t->logits + n * v, top = t->top[n], share = t->share / t->total[n];
        float *restrict dx = t->dlogits + n * v;
        if (t->targets[n] == t->ignore) {
            memset(dx, 0, v * sizeof *dx);
            continue;
        }
        for (int64_t i = 0; i < v; i++) dx[i] = exponential(x[i] - top) * share - even;
        dx[t->targets[n]] -= t->share * (1 - t->smoothing);
    }
}

const struct loss_kernels PER_SET(loss_kernels) = {
    .cross_entropy = cross_entropy,
    .cross_entropy_backward = cross_entropy_backward,
};
