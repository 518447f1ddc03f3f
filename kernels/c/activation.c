/* One pass over memory each; the functions themselves are in functions.h. */
#include "activation.h"
#include "functions.h"

/* Run a statement for every i of the units [first, last). Outputs overlap inputs only entry by entry. */
#define FOR_UNITS(...)                                                                      \
    const struct activation_task *t = task;                                                 \
    const float *dy = t->dy, *x = t->x, *up = t->up;                                        \
    float *y = t->y, *dup = t->dup;                                                         \
    (void)dy, (void)up, (void)dup;                                                          \
    _Pragma("GCC ivdep") for (int64_t i = first * t->width, end = smaller(last * t->width, t->n); i < end; i++) __VA_ARGS__

static inline float gelu_of(float x) { return 0.5f * x * (1 + error_function(x * 0.707106781f)); }

/* d/dx of x Phi(x): Phi(x) + x phi(x). */
static inline float gelu_slope(float x) {
    float z = clipped(x, -40, 40), density = 0.398942280f * exponential(-0.5f * z * z);
    return 0.5f * (1 + error_function(x * 0.707106781f)) + z * density;
}

/* tanh's half plus a half is a logistic function: 0.5 (1 + tanh u) = 1 / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3). */
static inline float gelu_tanh_gate_of(float x) { return logistic(1.59576912f * x * (1 + 0.044715f * x * x)); }

static inline float gelu_tanh_slope(float x) {
    float z = clipped(x, -10, 10), gate = gelu_tanh_gate_of(z);
    return gate + gate * (1 - gate) * z * (1.59576912f * (1 + 0.134145f * z * z));
}

static void gelu(const void *task, int64_t first, int64_t last) { FOR_UNITS(y[i] = gelu_of(x[i])); }
static void gelu_tanh(const void *task, int64_t first, int64_t last) { FOR_UNITS(y[i] = x[i] * gelu_tanh_gate_of(x[i])); }
static void silu(const void *task, int64_t first, int64_t last) { FOR_UNITS(y[i] = x[i] * logistic(x[i])); }
static void tanh_(const void *task, int64_t first, int64_t last) { FOR_UNITS(y[i] = hyperbolic_tangent(x[i])); }

static void silu_gate(const void *task, int64_t first, int64_t last) { FOR_UNITS(y[i] = x[i] * logistic(x[i]) * up[i]); }
static void gelu_gate(const void *task, int64_t first, int64_t last) { FOR_UNITS(y[i] = gelu_of(x[i]) * up[i]); }
static void gelu_tanh_gate(const void *task, int64_t first, int64_t last) {
    FOR_UNITS(y[i] = x[i] * gelu_tanh_gate_of(x[i]) * up[i]);
}

static void relu(const void *task, int64_t first, int64_t last) { FOR_UNITS(y[i] = x[i] < 0 ? 0 : x[i]); }
static void relu_backward(const void *task, int64_t first, int64_t last) {
    FOR_UNITS(y[i] = dy[i] * (x[i] > 0 ? 1.0f : 0.0f));
}

static void gelu_backward(const void *task, int64_t first, int64_t last) {
    FOR_UNITS(y[i] = dy[i] * gelu_slope(x[i]));
}

static void gelu_tanh_backward(const void *task, int64_t first, int64_t last) {
    FOR_UNITS(y[i] = dy[i] * gelu_tanh_slope(x[i]));
}

static void silu_gate_backward(const void *task, int64_t first, int64_t last) {
    FOR_UNITS({
        float s = logistic(x[i]);
        y[i] = dy[i] * up[i] * (s * (1 + x[i] * (1 - s)));
        dup[i] = dy[i] * (x[i] * s);
    })
}

const struct activation_kernels PER_SET(activation_kernels) = {
    .gelu = gelu,
    .gelu_tanh = gelu_tanh,
    .relu = relu,
    .silu = silu,
    .tanh = tanh_,
    .silu_gate = silu_gate,
    .gelu_gate = gelu_gate,
    .gelu_tanh_gate = gelu_tanh_gate,
    .gelu_backward = gelu_backward,
    .gelu_tanh_backward = gelu_tanh_backward,
    .relu_backward = relu_backward,
    .silu_gate_backward = silu_gate_backward,
};
