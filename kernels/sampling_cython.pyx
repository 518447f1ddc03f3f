"""Compiled distributions of the next token: checks, then the C of `c/sampling.c`."""

from minislm.kernels import border

from native cimport int64_t, kernel, parallel, reading, runtime, the_runtime, writing


cdef extern from "sampling.h" nogil:
    ctypedef struct sampling_task "struct sampling_task":
        const float *logits
        float *p
        int64_t v
        int64_t top_k
        float temperature
        float top_p
        float min_p
    ctypedef struct sampling_kernels "const struct sampling_kernels":
        kernel *token_probabilities
    sampling_kernels *sampling_kernels_for(int)

cdef const runtime *shared = the_runtime()
cdef float LEAST_TEMPERATURE = 1e-30  # a smaller one leaves the same tokens, and might be 0 in float32


def token_probabilities(
    logits_NV,
    *,
    double temperature=1.0,
    int64_t top_k=0,
    double top_p=1.0,
    double min_p=0.0,
    out=None,
    int threads=1,
):
    """Same as `ops.sampling.token_probabilities`; nothing is sorted."""
    logits = border.checked(logits_NV, "logits", 2)
    p = border.output(out, logits.shape, logits)
    cdef sampling_task task
    task.logits, task.p, task.v = <const float *>reading(logits), <float *>writing(p), logits.shape[1]
    task.top_k = top_k if top_k > 0 else task.v
    task.temperature = max(temperature, LEAST_TEMPERATURE)
    task.top_p, task.min_p = top_p, min_p
    cdef int64_t rows = len(logits)
    with nogil:
        parallel(
            sampling_kernels_for(shared.chosen).token_probabilities, &task, sizeof(task), rows,
            1 + 4096 // (1 + task.v), threads,
        )
    return border.delivered(p, out)
