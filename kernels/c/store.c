/* Writing keys and values into a cache. */
#include "store.h"
#include "rounding.h"

static void store_rows(const void *task, int64_t first, int64_t last) {
    const struct store_task *t = task;
    const int64_t size = t->g * t->width;
    for (int64_t n = first; n < last; n++) {
        const float *x = t->x + n * size;
        const int64_t row = t->rows ? t->rows[n] : n, place = row * size;
        if (t->to.dtype == STORED_FLOAT) {
            memcpy((float *)t->to.rows + place, x, size * sizeof *x);
        } else if (t->to.dtype == STORED_HALF) {
            uint16_t *to = (uint16_t *)t->to.rows + place;
            for (int64_t i = 0; i < size; i++) to[i] = narrowed(x[i]);
        } else {
            int8_t *to = (int8_t *)t->to.rows + place;
            float *scales = t->to.scales + row * t->g;
            for (int64_t g = 0; g < t->g; g++) scales[g] = round_group(x + g * t->width, t->width, -1, to + g * t->width);
        }
    }
}

const struct store_kernels PER_SET(store_kernels) = {.store_rows = store_rows};
