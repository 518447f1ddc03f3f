/* Products of float rows with quantized matrices in panels. */
#ifndef MINISLM_DECODED_PANELS_H
#define MINISLM_DECODED_PANELS_H
#include "panels.h"

struct decoded_task {
    struct panels w;
    const float *floats; /* values of masked panels that are no codes, or null */
    const float *x;    /* (n, inputs) */
    const float *bias; /* (outputs,) or null */
    float *y;          /* (n, outputs) */
    int64_t n;
};

/* A unit is UNIT_ROWS rows of two panels side by side, which are decoded anew for each. */
enum { UNIT_ROWS = 512 };
static inline int64_t panel_pairs(const struct decoded_task *t) { return (t->w.outputs + 2 * OUTPUTS - 1) / (2 * OUTPUTS); }
static inline int64_t decoded_units(const struct decoded_task *t) {
    return (t->n + UNIT_ROWS - 1) / UNIT_ROWS * panel_pairs(t);
}

struct decoded_panels_kernels {
    kernel *product;
};
FAMILY(decoded_panels_kernels)
#endif
