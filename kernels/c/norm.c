#include "norm.h"

static void rms_norm(const void *task, int64_t first, int64_t last) {
    const struct norm_task *t = task;
    int64_t d = t->d;
    for (int64_t n = first; n < last; n++) {
        const float *x = t->x + n * d;
        float *y = t->y + n * d;
        float r = 1 / sqrtf(dot(x, x, d) / d + t->eps);
        t->r[n] = r;
        for (int64_t i = 0; i < d; i++) y[i] = x[i] * r * t->w[i];
    }
}

const struct norm_kernels PER_SET(norm_kernels) = {.rms_norm = rms_norm};
