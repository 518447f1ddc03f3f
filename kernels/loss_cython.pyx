"""Compiled cross-entropy: checks, then the C of `c/loss.c`."""

import numpy as np

from minislm.kernels import border
from minislm.ops import loss

from native cimport int64_t, kernel, parallel, reading, runtime, the_runtime, writing


cdef extern from "loss.h" nogil:
    ctypedef struct cross_entropy_task "struct cross_entropy_task":
        const float *logits
        const int64_t *targets
        float *top
        float *total
        float *loss
        float *dlogits
        int64_t v
        int64_t ignore
        float smoothing
        float share
    ctypedef struct loss_kernels "const struct loss_kernels":
        kernel *cross_entropy
        kernel *cross_entropy_backward
    loss_kernels *loss_kernels_for(int)

cdef const runtime *shared = the_runtime()


def cross_entropy(logits_NV, targets_N, *, int64_t ignore=-100, double label_smoothing=0.0, out=None, int threads=1):
    """Same as `ops.loss.cross_entropy`; `out` is not used, the result being a number."""
    logits, targets = border.checked(logits_NV, "logits", 2), border.integers(targets_N, "targets", 1)
    border.same_shape(targets, "targets", logits.shape[:1])
    cdef int64_t n_kept = kept(targets, logits.shape[1], ignore)
    if n_kept < 0:
        return loss.cross_entropy(logits, targets, ignore=ignore)  # which says what is wrong with the targets
    top, total, losses = (np.empty(len(logits), border.FLOAT32) for _ in range(3))
    cdef cross_entropy_task task
    task.logits, task.targets = <const float *>reading(logits), <const int64_t *>reading(targets)
    task.top, task.total, task.loss = <float *>writing(top), <float *>writing(total), <float *>writing(losses)
    task.v, task.ignore, task.smoothing = logits.shape[1], ignore, label_smoothing
    run(loss_kernels_for(shared.chosen).cross_entropy, &task, len(logits), threads)
    mean = float(losses.sum(dtype=np.float64)) / max(n_kept, 1)
    return mean, (logits, top, total, targets_N, ignore, label_smoothing)


def cross_entropy_backward(double dloss, saved, *, out=None, int threads=1):
    """Same as `ops.loss.cross_entropy_backward`."""
    logits_NV, top_N, total_N, targets_N, ignore, label_smoothing = saved
    logits = border.checked(logits_NV, "logits", 2)
    top, total = border.checked(top_N, "top", 1), border.checked(total_N, "total", 1)
    targets = border.integers(targets_N, "targets", 1)
    border.same_shape(top, "top", logits.shape[:1])
    border.same_shape(total, "total", logits.shape[:1])
    border.same_shape(targets, "targets", logits.shape[:1])
    cdef int64_t n_kept = kept(targets, logits.shape[1], ignore)
    if n_kept < 0:
        raise IndexError("saved targets are out of range of the saved logits")
    dlogits = border.output(out, logits.shape, logits, top, total)
    cdef cross_entropy_task task
    task.logits, task.targets = <const float *>reading(logits), <const int64_t *>reading(targets)
    task.top, task.total, task.dlogits = <float *>reading(top), <float *>reading(total), <float *>writing(dlogits)
    task.v, task.ignore, task.smoothing = logits.shape[1], ignore, label_smoothing
    task.share = dloss / max(n_kept, 1)
    run(loss_kernels_for(shared.chosen).cross_entropy_backward, &task, len(logits), threads)
    return border.delivered(dlogits, out)


cdef int64_t kept(targets, int64_t v, int64_t ignore) except -2:
    """Count the targets that are not ignored; -1 if one of them is no column."""
    cdef const int64_t *target = <const int64_t *>reading(targets)
    cdef int64_t i, n = len(targets), count = 0
    for i in range(n):
        if target[i] != ignore:
            if not 0 <= target[i] < v:
                return -1
            count += 1
    return count


cdef int run(kernel *work, cross_entropy_task *task, int64_t n, int threads) except -1:
    with nogil:
        parallel(work, task, sizeof(task[0]), n, 1 + 32768 // (1 + task.v), threads)
    return 0
