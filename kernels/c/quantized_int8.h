#ifndef MINISLM_QUANTIZED_INT8_H
#define MINISLM_QUANTIZED_INT8_H
#include "codes.h"

struct rounding_task {
    const float *x; /* (N, inputs) */
    int8_t *codes;  /* (N, stride); zeros behind the inputs */
    float *scales;  /* (N, row_scales): every group's scale, `copies` times */
    int32_t *sums;  /* (N, spans) of the codes of every `span` inputs */
    float given;    /* the scale of every group; below 0: each has its own */
    int64_t inputs, stride, group, groups, copies, row_scales, span, spans;
};

struct int8_task {
    struct packed w;
    const int8_t *x;       /* (n, stride), a multiple of PADDING, zeros behind the inputs */
    const float *x_scales; /* (n, 1) for whole rows; (n, x_spans), one for each block, for groups */
    const int32_t *x_sums; /* (n, x_spans) */
    float *y;              /* (n, outputs) */
    int64_t n, stride, x_spans, outputs;
};

/* Outputs of a unit, and how many rows of x are kept near while the matrix goes by. */
enum { UNIT = 4, NEAR = 32 };

struct quantized_int8_kernels {
    kernel *round;      /* unit: a row of x */
    kernel *whole_rows; /* unit: UNIT outputs. One scale a row on both sides; sums over every RUN inputs */
    kernel *grouped;    /* unit: UNIT outputs. Any other scales; sums over every BLOCK inputs */
};
FAMILY(quantized_int8_kernels)
#endif
