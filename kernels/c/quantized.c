#include "quantized.h"

static void decode(const void *task, int64_t first, int64_t last) {
    const struct decode_task *t = task;
    struct run run;
    prepare(&run, &t->w);
    for (int64_t n = first; n < last; n++)
        for (int64_t i = 0; i < t->w.inputs; i += RUN) {
            open_run(&run, &t->w, t->rows[n], i, smaller(i + RUN, t->w.inputs), DIRECT);
            decode_run(&run, t->out + n * t->w.inputs + i);
        }
}

const struct quantized_kernels PER_SET(quantized_kernels) = {.decode = decode};
