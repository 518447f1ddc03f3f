#include "embedding.h"

static void embedding(const void *task, int64_t first, int64_t last) {
    const struct embedding_task *t = task;
    for (int64_t n = first; n < last; n++) memcpy(t->x + n * t->d, t->w + t->ids[n] * t->d, t->d * sizeof *t->x);
}

static void embedding_backward(const void *task, int64_t first, int64_t last) {
    const struct embedding_backward_task *t = task;
    const int64_t d = t->d, start = first * COLUMNS_PER_UNIT, size = smaller(last * COLUMNS_PER_UNIT, d) - start;
    for (int64_t v = 0; v < t->v; v++) memset(t->dw + v * d + start, 0, size * sizeof *t->dw);
    for (int64_t n = 0; n < t->n; n++) {
        const float *restrict dx = t->dx + n * d + start;
        float *restrict dw = t->dw + t->ids[n] * d + start;
        for (int64_t i = 0; i < size; i++) dw[i] += dx[i];
    }
}

const struct embedding_kernels PER_SET(embedding_kernels) = {
    .embedding = embedding,
    .embedding_backward = embedding_backward,
};
