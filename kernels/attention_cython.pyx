"""Compiled attention: checks, then the C of `c/attention.c`."""

import math

import numpy as np

from minislm.kernels import border
from minislm.ops.attention import Options
from minislm.ops.packed import rounded_up

from libc.stdint cimport uint8_t

from native cimport int64_t, kernel, parallel, reading, runtime, stage, stage_of, the_runtime, writing
from scores cimport describe, scoring
from store cimport enter_store, store


cdef extern from "attention.h" nogil:
    int64_t SPAN
    int64_t PART
    ctypedef struct attention_task "struct attention_task":
        const float *q
        store k
        store v
        const int64_t *counts
        const int64_t *firsts
        const int64_t *lengths
        const int64_t *positions
        const uint8_t *key_mask
        float *y
        float *logsumexp
        float *parts
        int64_t b
        int64_t rows
        int64_t t
        int64_t shares
        int64_t spans
        int64_t h
        int64_t g
        int64_t width
        int64_t tile
        scoring scoring
    int64_t attention_units(const attention_task *)
    int64_t attention_tile(attention_task *, int64_t)
    ctypedef struct attention_kernels "const struct attention_kernels":
        kernel *attention
        kernel *attention_by_rows
        kernel *attention_joined
    attention_kernels *attention_kernels_for(int)

cdef const runtime *shared = the_runtime()

cdef int64_t WORTH_A_THREAD = 1 << 19  # multiplications
cdef int64_t READING = 32  # of them take as long as to read a key and turn it over, or a value
cdef int64_t FEW_ROWS = 4  # to read their keys takes the time: spans of all heads one after the other, as they lie in memory
cdef int64_t TILES_PER_THREAD = 8  # so that none waits long for another at the end
cdef int64_t UNITS_PER_THREAD = 2  # where there are fewer units, they share the keys of their queries


def attention(q_BTHK, k_BSGK, v_BSGK, bias_HS1=None, *, causal=False, key_mask_BS=None, window=None, starts_B=None,
              scale=None, cap=None, out=None, int threads=1):
    """Same as `ops.attention.attention`, by tiles: the T x S scores are never in memory at once."""
    q, k, v = border.checked(q_BTHK, "q", 4), border.checked(k_BSGK, "k", 4), border.checked(v_BSGK, "v", 4)
    border.attention_shapes(q, k, v)
    border.narrow(q)
    scale = q.shape[3] ** -0.5 if scale is None else float(scale)
    options = Options(causal, key_mask_BS, window, starts_B, scale, cap, bias_HS1)
    n_rows, n_queries, n_heads, width = q.shape
    n_keys = k.shape[1]
    cdef attention_task task
    held = describe(&task.scoring, options, n_heads)
    mask, starts = border.key_mask(key_mask_BS, k.shape[:2]), border.starts(starts_B, n_rows)
    y = border.output(out, q.shape, q, k, v, *(array for array in (held, mask, starts) if array is not None))
    logsumexp = np.empty((n_rows, n_heads, n_queries), border.FLOAT32)
    task.key_mask, task.logsumexp, task.t = NULL, <float *>writing(logsumexp), n_queries
    if mask is not None:
        task.key_mask = <const uint8_t *>reading(mask)
    counts, firsts, lengths = np.full(n_rows, n_queries), np.arange(n_rows) * n_keys, np.full(n_rows, n_keys)
    starts = np.zeros(n_rows, np.int64) if starts is None else starts
    task.positions = <const int64_t *>reading(starts)
    enter_store(&task.k, k, None, False)
    enter_store(&task.v, v, None, False)
    run(&task, q, k, y, counts, firsts, lengths, threads)
    y = border.delivered(y, out)
    return y, (q, k, v, y, logsumexp, options)


def attention_packed(q_NHK, k_SGK, v_SGK, counts_B, firsts_B, lengths_B, bias_HS1=None, *, causal=False, window=None,
                     scale=None, cap=None, out=None, int threads=1):
    """Same as `ops.packed.attention_packed`, by tiles, and cut along the keys where there is little else to share."""
    q = border.checked(q_NHK, "q", 3)
    k, v = border.packed_rows(k_SGK, v_SGK)
    return to_rows(q, k, v, None, None, (counts_B, firsts_B, lengths_B), bias_HS1, causal, window, scale, cap, out, threads)


def attention_packed_int8(q_NHK, k_SGK, v_SGK, k_scales_SG, v_scales_SG, counts_B, firsts_B, lengths_B, bias_HS1=None, *,
                          causal=False, window=None, scale=None, cap=None, out=None, int threads=1):
    """Same as `ops.packed.attention_packed_int8`, by tiles as `attention_packed`."""
    q = border.checked(q_NHK, "q", 3)
    k, k_scales = border.store(k_SGK, k_scales_SG, "k", "k_scales")
    v, v_scales = border.store(v_SGK, v_scales_SG, "v", "v_scales")
    for array, name in ((k, "k"), (v, "v")):
        if array.dtype != border.INT8:
            raise TypeError(f"{name} must be int8, not {array.dtype}")
    table = counts_B, firsts_B, lengths_B
    return to_rows(q, k, v, k_scales, v_scales, table, bias_HS1, causal, window, scale, cap, out, threads)


cdef to_rows(q, k, v, k_scales, v_scales, table, bias, causal, window, scale, cap, out, int threads):
    """Attend to rows of a store."""
    counts, firsts, lengths = border.packed_sequences(q, k, v, *table)
    border.narrow(q)
    scale = q.shape[2] ** -0.5 if scale is None else float(scale)
    cdef attention_task task
    held = describe(&task.scoring, Options(causal, None, window, None, scale, cap, bias), q.shape[1])
    y = border.output(out, q.shape, *(array for array in (q, k, v, held, k_scales, v_scales) if array is not None))
    task.key_mask, task.positions, task.logsumexp, task.t = NULL, NULL, NULL, 1
    enter_store(&task.k, k, k_scales, False)
    enter_store(&task.v, v, v_scales, False)
    run(&task, q, k, y, counts, firsts, lengths, threads)
    return border.delivered(y, out)


cdef run(attention_task *task, q, k, y, counts, firsts, lengths, int threads):
    """Enter the sequences and run; scratch is needed only where units share the keys of a query."""
    task.q, task.y, task.parts = <const float *>reading(q), <float *>writing(y), NULL
    task.counts, task.firsts = <const int64_t *>reading(counts), <const int64_t *>reading(firsts)
    task.lengths = <const int64_t *>reading(lengths)
    task.h, task.g, task.width = q.shape[-2], k.shape[-2], q.shape[-1]
    task.b, task.rows, task.shares = len(counts), math.prod(q.shape[:-2]), 1
    task.tile = attention_tile(task, TILES_PER_THREAD * threads)
    cdef int64_t longest = rounded_up(lengths.max(initial=0)), units = attention_units(task), rows = task.rows * task.h
    task.spans = -(-longest // SPAN)
    if task.rows <= FEW_ROWS and task.spans >= UNITS_PER_THREAD * threads:
        task.shares = task.spans
    elif units < UNITS_PER_THREAD * threads and threads > 1 < task.spans:
        task.shares = min(task.spans, UNITS_PER_THREAD * threads)
    if task.shares > 1:
        units *= task.shares
        parts = np.empty(rows * task.spans * (task.width + PART), border.FLOAT32)
        task.parts = <float *>writing(parts)
    cdef int64_t rows_of_a_unit = rows * task.shares // max(units, 1) + READING
    cdef int64_t grain = 1 + WORTH_A_THREAD // (1 + 2 * rows_of_a_unit * task.width * longest // task.shares)
    cdef attention_kernels *kernels = attention_kernels_for(shared.chosen)
    cdef stage whole = stage_of(kernels.attention, task, units, grain)
    if task.shares == 1 and task.positions is NULL and len(k) == task.rows:  # each sequence has its own keys among as many
        whole.by_rows, whole.rows = kernels.attention_by_rows, task.rows
        whole.counts, whole.sequences, whole.longest = task.counts, task.b, longest
    with nogil:
        shared.run_stage(&whole, sizeof(task[0]), threads)
        if task.shares > 1:
            grain = 1 + WORTH_A_THREAD // (1 + task.width * task.spans)
            parallel(kernels.attention_joined, task, sizeof(task[0]), rows, grain, threads)
