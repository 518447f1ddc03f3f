"""Compiled backward of attention: checks, then the C of `c/attention_backward.c`."""

import numpy as np

from minislm.kernels import border

from libc.stdint cimport uint8_t

from native cimport int64_t, kernel, parallel, reading, runtime, the_runtime, writing
from scores cimport describe, scoring


cdef extern from "attention_backward.h" nogil:
    ctypedef struct attention_backward_task "struct attention_backward_task":
        const float *dy
        const float *q
        const float *k
        const float *v
        const float *y
        const float *logsumexp
        const uint8_t *key_mask
        const int64_t *starts
        float *dq
        float *dk
        float *dv
        float *dbias
        int64_t t
        int64_t s
        int64_t h
        int64_t g
        int64_t width
        scoring scoring
    ctypedef struct attention_backward_kernels "const struct attention_backward_kernels":
        kernel *attention_backward
    attention_backward_kernels *attention_backward_kernels_for(int)

cdef const runtime *shared = the_runtime()

cdef int64_t WORTH_A_THREAD = 1 << 20  # multiplications


def attention_backward(dy_BTHK, saved, *, out=None, int threads=1):
    """Same as `ops.attention.attention_backward`, by tiles; `out` receives `dq`."""
    q_BTHK, k_BSGK, v_BSGK, y_BTHK, logsumexp_BHT, options = saved
    q, k, v = border.checked(q_BTHK, "q", 4), border.checked(k_BSGK, "k", 4), border.checked(v_BSGK, "v", 4)
    dy, y = border.checked(dy_BTHK, "dy", 4), border.checked(y_BTHK, "y", 4)
    logsumexp = border.checked(logsumexp_BHT, "logsumexp", 3)
    border.attention_shapes(q, k, v)
    border.narrow(q)
    border.same_shape(dy, "dy", q.shape)
    border.same_shape(y, "y", q.shape)
    border.same_shape(logsumexp, "logsumexp", (q.shape[0], q.shape[2], q.shape[1]))
    cdef attention_backward_task task
    bias, dbias, task.dbias = describe(&task.scoring, options, q.shape[2]), None, NULL
    mask, starts = border.key_mask(options.key_mask_BS, k.shape[:2]), border.starts(options.starts_B, q.shape[0])
    task.key_mask, task.starts = NULL, NULL
    if mask is not None:
        task.key_mask = <const uint8_t *>reading(mask)
    if starts is not None:
        task.starts = <const int64_t *>reading(starts)
    dq = border.output(out, q.shape, q, k, v, dy, y, logsumexp)
    dk, dv = np.empty(k.shape, border.FLOAT32), np.empty(k.shape, border.FLOAT32)
    if bias is not None:  # rows apart, so that no two threads add to one number
        dbias = np.zeros((q.shape[0], *bias.shape), border.FLOAT32)
        task.dbias = <float *>writing(dbias)
    task.q, task.k, task.v = <const float *>reading(q), <const float *>reading(k), <const float *>reading(v)
    task.dy, task.y = <const float *>reading(dy), <const float *>reading(y)
    task.logsumexp = <const float *>reading(logsumexp)
    task.dq, task.dk, task.dv = <float *>writing(dq), <float *>writing(dk), <float *>writing(dv)
    task.t, task.h, task.s, task.g, task.width = q.shape[1], q.shape[2], k.shape[1], k.shape[2], q.shape[3]
    cdef int64_t n = q.shape[0] * task.g
    cdef int64_t grain = 1 + WORTH_A_THREAD // (1 + 5 * task.t * task.s * task.width * (task.h // task.g))
    cdef kernel *work = attention_backward_kernels_for(shared.chosen).attention_backward
    with nogil:
        parallel(work, &task, sizeof(task), n, grain, threads)
    return border.delivered(dq, out), dk, dv, None if dbias is None else dbias.sum(axis=0)
