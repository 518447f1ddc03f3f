/* One pass over the four buffers: what limits it is memory. */
#include "optimizer.h"

static inline void update(const struct adamw_task *t, int64_t i, float decay) {
    float dw = t->dw[i];
    float m = t->beta1 * t->m[i] + t->rest1 * dw;
    float v = t->beta2 * t->v[i] + t->rest2 * (dw * dw);
    t->m[i] = m, t->v[i] = v;
    t->w[i] = t->w[i] * (1 - t->learning_rate * decay) - t->rate * (m / (sqrtf(v) * t->unbias + t->eps));
}

static void adamw(const void *task, int64_t first, int64_t last) {
    const struct adamw_task t = *(const struct adamw_task *)task;
    int64_t start = first * BLOCK, end = smaller(last * BLOCK, t.n);
    if (t.decay) {
#pragma GCC ivdep
        for (int64_t i = start; i < end; i++) update(&t, i, t.decay[i]);
    } else {
#pragma GCC ivdep
        for (int64_t i = start; i < end; i++) update(&t, i, t.same_decay);
    }
}

const struct optimizer_kernels PER_SET(optimizer_kernels) = {.adamw = adamw};
