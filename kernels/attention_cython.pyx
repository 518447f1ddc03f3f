"""Compiled attention: checks, then the C of `c/attention.c`."""

import numpy as np

from minislm.kernels import border
from minislm.ops.attention import Options

from libc.stdint cimport uint8_t

from native cimport int64_t, kernel, reading, runtime, the_runtime, writing


cdef extern from "attention.h" nogil:
    int64_t PADDED_KEYS(int64_t)
    ctypedef struct attention_task "struct attention_task":
        const float *q
        const float *k
        const float *v
        const float *y
        const float *dy
        const uint8_t *key_mask
        const int64_t *starts
        const float *bias
        float *result
        float *dq
        float *dk
        float *dv
        float *dbias
        float *logsumexp
        float *scratch
        int64_t t
        int64_t s
        int64_t h
        int64_t g
        int64_t width
        int64_t window
        int64_t reach
        bint causal
        float scale
        float cap
    ctypedef struct attention_one_task "struct attention_one_task":
        const float *q
        const float *k
        const float *v
        const int64_t *slots
        const int64_t *lengths
        const float *bias
        float *y
        float *scratch
        int64_t s
        int64_t h
        int64_t g
        int64_t width
        int64_t window
        int64_t reach
        int64_t together
        float scale
        float cap
    ctypedef struct attention_kernels "const struct attention_kernels":
        kernel *attention
        kernel *attention_backward
        kernel *attention_one
    attention_kernels *attention_kernels_for(int)

cdef const runtime *shared = the_runtime()

cdef int64_t WORTH_A_THREAD = 1 << 19  # multiplications


def attention(q_BTHK, k_BSGK, v_BSGK, bias_HS1=None, *, causal=False, key_mask_BS=None, window=None, starts_B=None,
              scale=None, cap=None, out=None, int threads=1):
    """Same as `ops.attention.attention`, by tiles: the T x S scores are never in memory at once."""
    q, k, v = border.checked(q_BTHK, "q", 4), border.checked(k_BSGK, "k", 4), border.checked(v_BSGK, "v", 4)
    scale = q.shape[3] ** -0.5 if scale is None else float(scale)
    options = Options(causal, key_mask_BS, window, starts_B, scale, cap, bias_HS1)
    cdef attention_task task
    held = describe(&task, q, k, v, options)
    y = border.output(out, q.shape, q, k, v, *(array for array in held if array is not None))
    logsumexp = np.empty((q.shape[0], q.shape[2], q.shape[1]), border.FLOAT32)
    cdef int64_t n = q.shape[0] * task.h
    scratch = np.empty(2 * n * task.width * PADDED_KEYS(task.s), border.FLOAT32)
    task.result, task.logsumexp = <float *>writing(y), <float *>writing(logsumexp)
    task.scratch = <float *>writing(scratch)
    cdef int64_t grain = 1 + WORTH_A_THREAD // (1 + 2 * task.t * task.s * task.width)
    cdef kernel *work = attention_kernels_for(shared.chosen).attention
    with nogil:
        shared.parallel(work, &task, sizeof(task), n, grain, threads)
    y = border.delivered(y, out)
    return y, (q, k, v, y, logsumexp, options)


def attention_backward(dy_BTHK, saved, *, out=None, int threads=1):
    """Same as `ops.attention.attention_backward`, by tiles; `out` receives `dq`."""
    q_BTHK, k_BSGK, v_BSGK, y_BTHK, logsumexp_BHT, options = saved
    q, k, v = border.checked(q_BTHK, "q", 4), border.checked(k_BSGK, "k", 4), border.checked(v_BSGK, "v", 4)
    dy, y = border.checked(dy_BTHK, "dy", 4), border.checked(y_BTHK, "y", 4)
    logsumexp = border.checked(logsumexp_BHT, "logsumexp", 3)
    cdef attention_task task
    held = describe(&task, q, k, v, options)
    border.same_shape(dy, "dy", q.shape)
    border.same_shape(y, "y", q.shape)
    border.same_shape(logsumexp, "logsumexp", (q.shape[0], q.shape[2], q.shape[1]))
    dq = border.output(out, q.shape, q, k, v, dy, y, logsumexp)
    dk, dv = np.empty(k.shape, border.FLOAT32), np.empty(k.shape, border.FLOAT32)
    bias, dbias, task.dbias = held[2], None, NULL
    if bias is not None:  # rows apart, so that no two threads add to one number
        dbias = np.zeros((q.shape[0], *bias.shape), border.FLOAT32)
        task.dbias = <float *>writing(dbias)
    cdef int64_t n = q.shape[0] * task.g
    scratch = np.empty(5 * n * task.width * PADDED_KEYS(task.s), border.FLOAT32)
    task.dy, task.y, task.logsumexp = <float *>reading(dy), <float *>reading(y), <float *>reading(logsumexp)
    task.dq, task.dk, task.dv = <float *>writing(dq), <float *>writing(dk), <float *>writing(dv)
    task.scratch = <float *>writing(scratch)
    cdef int64_t grain = 1 + WORTH_A_THREAD // (1 + 5 * task.t * task.s * task.width * (task.h // task.g))
    cdef kernel *work = attention_kernels_for(shared.chosen).attention_backward
    with nogil:
        shared.parallel(work, &task, sizeof(task), n, grain, threads)
    return border.delivered(dq, out), dk, dv, None if dbias is None else dbias.sum(axis=0)


cdef describe(attention_task *task, q, k, v, options):
    """Check sizes and options and enter them; return what must stay alive while the task runs."""
    border.same_shape(k, "k", (q.shape[0], k.shape[1], k.shape[2], q.shape[3]))
    border.same_shape(v, "v", k.shape)
    border.heads(q.shape[2], k.shape[2])
    task.q, task.k, task.v = <const float *>reading(q), <const float *>reading(k), <const float *>reading(v)
    task.t, task.h, task.s, task.g, task.width = q.shape[1], q.shape[2], k.shape[1], k.shape[2], q.shape[3]
    task.causal, task.scale, task.window = options.causal, options.scale, border.reach(options.window)
    task.cap = border.bound(options.cap)
    bias = border.biases(options.bias_HS1, q.shape[2])
    task.bias, task.reach = NULL, 0
    if bias is not None:
        task.bias, task.reach = <const float *>reading(bias), bias.shape[1] // 2
    mask, starts = options.key_mask_BS, options.starts_B
    task.key_mask, task.starts = NULL, NULL
    if mask is not None:
        mask = border.checked(mask, "key_mask", 2, np.dtype(bool))
        border.same_shape(mask, "key_mask", k.shape[:2])
        task.key_mask = <const uint8_t *>reading(mask)
    if starts is not None:
        starts = border.integers(starts, "starts", 1)
        border.same_shape(starts, "starts", q.shape[:1])
        border.in_range(starts, "starts", 0, 1 << 62)
        task.starts = <const int64_t *>reading(starts)
    return mask, starts, bias


def attention_one(q_BHK, k_CSGK, v_CSGK, slots_B, lengths_B, bias_HS1=None, *, window=None, scale=None, cap=None,
                  out=None, int threads=1):
    """Same as `ops.attention.attention_one`; the query heads that share a key head read its keys together."""
    q, k, v, slots, lengths = border.cached_attention(q_BHK, k_CSGK, v_CSGK, slots_B, lengths_B)
    bias = border.biases(bias_HS1, q.shape[1])
    y = border.output(out, q.shape, q, k, v, *(() if bias is None else (bias,)))
    scratch = np.empty((q.shape[0], q.shape[1], k.shape[1]), border.FLOAT32)
    cdef attention_one_task task
    task.q, task.k, task.v = <const float *>reading(q), <const float *>reading(k), <const float *>reading(v)
    task.slots, task.lengths = <const int64_t *>reading(slots), <const int64_t *>reading(lengths)
    task.y, task.scratch = <float *>writing(y), <float *>writing(scratch)
    task.s, task.h, task.g, task.width = k.shape[1], q.shape[1], k.shape[2], q.shape[2]
    task.window, task.scale = border.reach(window), q.shape[2] ** -0.5 if scale is None else scale
    task.cap, task.bias, task.reach = border.bound(cap), NULL, 0
    if bias is not None:
        task.bias, task.reach = <const float *>reading(bias), bias.shape[1] // 2
    cdef int64_t n_rows = q.shape[0], longest = lengths.max(initial=0)
    task.together = task.g if n_rows >= threads else -(-task.g // threads)
    cdef int64_t n = n_rows * -(-task.g // task.together)
    cdef int64_t grain = 1 + WORTH_A_THREAD // (1 + 2 * longest * task.width * task.together * (task.h // task.g))
    cdef kernel *work = attention_kernels_for(shared.chosen).attention_one
    with nogil:
        shared.parallel(work, &task, sizeof(task), n, grain, threads)
    return border.delivered(y, out)
