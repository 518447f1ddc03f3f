/* Dropout in one pass: the entry's number is mixed in registers, and nothing but its result and one byte is written. */
#include "dropout.h"

/* Output number `i` (from 0) of the SplitMix64 stream that starts at `start`. */
static inline uint64_t mixed(uint64_t start, uint64_t i) {
    uint64_t z = start + (i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static void drop(const void *task, int64_t first, int64_t last) {
    const struct dropout_task *t = task;
    const float *x = t->x;
    float *y = t->y, factor = t->factor;
    unsigned char *kept = t->kept;
    uint64_t start = t->start, threshold = t->threshold;
    _Pragma("GCC ivdep") for (int64_t i = first * BLOCK, end = smaller(last * BLOCK, t->n); i < end; i++) {
        int keep = mixed(start, (uint64_t)i) >= threshold;
        kept[i] = (unsigned char)keep;
        y[i] = x[i] * (float)keep * factor;
    }
}

static void drop_again(const void *task, int64_t first, int64_t last) {
    const struct dropout_task *t = task;
    const float *x = t->x;
    float *y = t->y, factor = t->factor;
    const unsigned char *kept = t->kept;
    _Pragma("GCC ivdep") for (int64_t i = first * BLOCK, end = smaller(last * BLOCK, t->n); i < end; i++) {
        y[i] = x[i] * (float)kept[i] * factor;
    }
}

const struct dropout_kernels PER_SET(dropout_kernels) = {.drop = drop, .drop_again = drop_again};
