#include "rotary.h"

/* Turn pairs whose entries are `stride` apart, consecutive pairs `step` apart. */
static inline void turn(const struct rotary_task *t, const float *x, float *restrict y, int64_t n, int64_t stride,
                        int64_t step) {
    const int64_t at = (t->positions ? t->positions[n] : n) * t->pairs;
    const float *cosine = t->cosine + at, *sine = t->sine + at;
    for (int64_t i = 0; i < t->pairs; i++) {
        float a = x[i * step], b = x[i * step + stride], c = cosine[i], s = sine[i] * t->direction;
        y[i * step] = a * c - b * s;
        y[i * step + stride] = b * c + a * s;
    }
}

static void rotate(const void *task, int64_t first, int64_t last) {
    const struct rotary_task *t = task;
    for (int64_t n = first; n < last; n++)
        for (int64_t h = 0; h < t->heads; h++) {
            int64_t start = (n * t->heads + h) * t->width;
            const float *x = t->x + start;
            float *y = t->y + start;
            if (t->interleaved)
                turn(t, x, y, n, 1, 2);
            else
                turn(t, x, y, n, t->pairs, 1);
            for (int64_t i = 2 * t->pairs; i < t->width; i++) y[i] = x[i];
        }
}

const struct rotary_kernels PER_SET(rotary_kernels) = {.rotate = rotate};
