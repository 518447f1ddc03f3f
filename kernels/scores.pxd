# What the borders of attention and of its backward share: options as the C takes them.
from native cimport int64_t, reading


cdef extern from "scores.h" nogil:
    ctypedef struct scoring "struct scoring":
        const float *bias
        int64_t reach
        int64_t window
        bint causal
        float scale
        float cap


cdef inline describe(scoring *to, options, int64_t n_heads):
    """Check options and enter them; return the bias, which must stay alive while the task runs."""
    from minislm.kernels import border

    to.causal, to.scale, to.window = options.causal, options.scale, border.reach(options.window)
    to.cap = border.bound(options.cap)
    bias = border.biases(options.bias_HS1, n_heads)
    to.bias, to.reach = NULL, 0
    if bias is not None:
        to.bias, to.reach = <const float *>reading(bias), bias.shape[1] // 2
    return bias
