/* The forward stores one number a row; the backward computes the probabilities again, in place of N*V floats kept. */
#include "loss.h"
#include "functions.h"

enum { CHUNK = 512 }; /* exponentials that are kept only until they are added up */

static void cross_entropy(const void *task, int64_t first, int64_t last) {
    const struct cross_entropy_task *t = task;
    const int64_t v = t->v;
    for (int64_t n = first; n < last; n++) {
        const float *x = t->logits + n * v;
        float scratch[CHUNK], total = 0, top = largest(x, v);
        for (int64_t i = 0; i < v; i += CHUNK) total += exponentials(x + i, top, scratch, smaller(CHUNK, v - i));
        float logsumexp = logf(total) + top;
        t->logsumexp[n] = logsumexp;
        t->loss[n] = 0;
        if (t->targets[n] != t->ignore) {
            t->loss[n] = (1 - t->smoothing) * (logsumexp - x[t->targets[n]]);
            if (t->smoothing) t->loss[n] += t->smoothing * (logsumexp - sum(x, v) / v);
        }
    }
}

static void cross_entropy_backward(const void *task, int64_t first, int64_t last) {
    const struct cross_entropy_task *t = task;
    const int64_t v = t->v;
    const float share = t->share, even = t->smoothing / v;
    for (int64_t n = first; n < last; n++) {
        const float *x = t->logits + n * v, logsumexp = t->logsumexp[n];
        float *restrict dx = t->dlogits + n * v;
        if (t->targets[n] == t->ignore) {
            memset(dx, 0, v * sizeof *dx);
            continue;
        }
        for (int64_t i = 0; i < v; i++) dx[i] = (exponential(x[i] - logsumexp) - even) * share;
        int64_t target = t->targets[n];
        dx[target] = (exponential(x[target] - logsumexp) - even - (1 - t->smoothing)) * share;
    }
}

const struct loss_kernels PER_SET(loss_kernels) = {
    .cross_entropy = cross_entropy,
    .cross_entropy_backward = cross_entropy_backward,
};
