/* Elementwise functions of the feed-forward part. */
#ifndef MINISLM_ACTIVATION_H
#define MINISLM_ACTIVATION_H
#include "kernel.h"

struct activation_task {
    const float *dy, *x, *up; /* dy for backwards only, up for gates only; n numbers each */
    float *y, *dup;           /* the result, or x's gradient; up's gradient */
    int64_t n, width;         /* of a unit: a row */
};

struct activation_kernels {
    kernel *gelu, *gelu_tanh, *relu, *silu, *tanh, *silu_gate, *gelu_gate, *gelu_tanh_gate;
    kernel *gelu_backward, *gelu_tanh_backward, *relu_backward, *silu_gate_backward;
};
FAMILY(activation_kernels)
#endif
