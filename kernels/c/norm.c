/* Every row is read from memory once; the further passes over it find it in the nearest cache. Outputs overlap nothing,
   which `ivdep` tells GCC where it would rather look for itself, and then do one number at a time. */
#include "norm.h"

static void layer_norm(const void *task, int64_t first, int64_t last) {
    const struct norm_task *t = task;
    const int64_t d = t->d;
    const float *restrict w = t->w, *restrict b = t->b;
    for (int64_t n = first; n < last; n++) {
        const float *x = t->x + n * d;
        float *y = t->y + n * d;
        float mean = sum(x, d) / d;
        for (int64_t i = 0; i < d; i++) y[i] = x[i] - mean;
        float r = 1 / sqrtf(dot(y, y, d) / d + t->eps);
        for (int64_t i = 0; i < d; i++) y[i] = y[i] * r * w[i] + b[i];
        t->mean[n] = mean, t->r[n] = r;
    }
}

static void rms_norm(const void *task, int64_t first, int64_t last) {
    const struct norm_task *t = task;
    const int64_t d = t->d;
    const float *restrict w = t->w;
    for (int64_t n = first; n < last; n++) {
        const float *x = t->x + n * d;
        float *y = t->y + n * d;
        float r = 1 / sqrtf(dot(x, x, d) / d + t->eps);
        for (int64_t i = 0; i < d; i++) y[i] = x[i] * r * w[i];
        t->r[n] = r;
    }
}

static void layer_norm_backward(const void *task, int64_t first, int64_t last) {
    const struct norm_backward_task *t = task;
    const int64_t d = t->d;
    const float *restrict w = t->w;
    for (int64_t part = first; part < last; part++) {
        float *restrict dw = t->dw + part * d, *restrict db = t->db + part * d;
        memset(dw, 0, d * sizeof *dw);
        memset(db, 0, d * sizeof *db);
        int64_t end = smaller((part + 1) * ROWS_PER_PART, t->n);
        for (int64_t n = part * ROWS_PER_PART; n < end; n++) {
            const float *restrict x = t->x + n * d, *restrict dy = t->dy + n * d;
            float *restrict dx = t->dx + n * d;
            const float mean = t->mean[n], r = t->r[n];
#pragma GCC ivdep
            for (int64_t i = 0; i < d; i++) {
                float normal = (x[i] - mean) * r;
                db[i] += dy[i];
                dw[i] += dy[i] * normal;
                dx[i] = dy[i] * w[i];
            }
            float along = shifted_dot(dx, x, mean, d) * r / d;
            for (int64_t i = 0; i < d; i++) dx[i] = (dx[i] - (x[i] - mean) * r * along) * r;
            float middle = sum(dx, d) / d;
            for (int64_t i = 0; i < d; i++) dx[i] -= middle;
        }
    }
}

static void rms_norm_backward(const void *task, int64_t first, int64_t last) {
    const struct norm_backward_task *t = task;
    const int64_t d = t->d;
    const float *restrict w = t->w;
    for (int64_t part = first; part < last; part++) {
        float *restrict dw = t->dw + part * d;
        memset(dw, 0, d * sizeof *dw);
        int64_t end = smaller((part + 1) * ROWS_PER_PART, t->n);
        for (int64_t n = part * ROWS_PER_PART; n < end; n++) {
            const float *restrict x = t->x + n * d, *restrict dy = t->dy + n * d;
            float *restrict dx = t->dx + n * d;
            const float r = t->r[n];
#pragma GCC ivdep
            for (int64_t i = 0; i < d; i++) {
                dw[i] += dy[i] * (x[i] * r);
                dx[i] = dy[i] * w[i];
            }
            float along = dot(dx, x, d) * r / d;
            for (int64_t i = 0; i < d; i++) dx[i] = (dx[i] - x[i] * r * along) * r;
        }
    }
}

const struct norm_kernels PER_SET(norm_kernels) = {
    .layer_norm = layer_norm,
    .rms_norm = rms_norm,
    .layer_norm_backward = layer_norm_backward,
    .rms_norm_backward = rms_norm_backward,
};
