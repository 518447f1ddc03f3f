/* AdamW. */
#ifndef MINISLM_OPTIMIZER_H
#define MINISLM_OPTIMIZER_H
#include "kernel.h"

enum { BLOCK = 2048 }; /* numbers in a unit */

struct adamw_task {
    float *w, *m, *v;        /* n numbers each, updated in place */
    const float *dw, *decay; /* decay: n numbers, or null: the same for all */
    int64_t n;
    float same_decay, learning_rate, eps;
    float beta1, rest1, beta2, rest2; /* rest: 1 - beta, which float32 would not give exactly enough */
    float rate, unbias; /* learning_rate / (1 - beta1^step), 1 / sqrt(1 - beta2^step) */
};

struct optimizer_kernels {
    kernel *adamw;
};
FAMILY(optimizer_kernels)
#endif
