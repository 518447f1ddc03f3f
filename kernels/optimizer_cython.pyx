"""Compiled AdamW: checks, then the C of `c/optimizer.c`."""

import numpy as np

from minislm.kernels import border

from native cimport int64_t, kernel, parallel, reading, runtime, the_runtime, writing


cdef extern from "optimizer.h" nogil:
    enum:
        BLOCK
    ctypedef struct adamw_task "struct adamw_task":
        float *w
        float *m
        float *v
        const float *dw
        const float *decay
        int64_t n
        float same_decay
        float learning_rate
        float eps
        float beta1
        float rest1
        float beta2
        float rest2
        float rate
        float unbias
    ctypedef struct optimizer_kernels "const struct optimizer_kernels":
        kernel *adamw
    optimizer_kernels *optimizer_kernels_for(int)

cdef const runtime *shared = the_runtime()


def adamw(w, dw, m, v, *, int64_t step, double learning_rate, double beta1, double beta2, double eps, decay,
          out=None, int threads=1):
    """Same as `ops.optimizer.adamw`: updates `w`, `m` and `v`, which must be C-contiguous, in one pass; no `out`."""
    dw = border.checked(dw, "dw", 1)
    for array, name in ((w, "w"), (m, "m"), (v, "v")):
        border.updated(array, name, dw.shape)
    cdef adamw_task task
    task.w, task.dw = <float *>writing(w), <const float *>reading(dw)
    task.m, task.v, task.n = <float *>writing(m), <float *>writing(v), len(dw)
    task.decay = NULL
    if isinstance(decay, np.ndarray):
        decay = border.checked(decay, "decay", 1)
        border.same_shape(decay, "decay", dw.shape)
        task.decay = <const float *>reading(decay)
    else:
        task.same_decay = decay
    task.learning_rate, task.eps = learning_rate, eps
    task.beta1, task.rest1, task.beta2, task.rest2 = beta1, 1 - beta1, beta2, 1 - beta2
    task.rate, task.unbias = learning_rate / (1 - beta1**step), (1 - beta2**step) ** -0.5
    cdef kernel *work = optimizer_kernels_for(shared.chosen).adamw
    with nogil:
        parallel(work, &task, sizeof(task), -(-task.n // BLOCK), 32, threads)
