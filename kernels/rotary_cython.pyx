"""Compiled rotary positions: checks, then the C of `c/rotary.c`."""

import functools

import numpy as np

from minislm.kernels import border
from minislm.ops import rotary as reference
from minislm.ops.packed import rounded_up

from native cimport int64_t, kernel, parallel_rows, reading, runtime, the_runtime, writing


cdef extern from "rotary.h" nogil:
    ctypedef struct rotary_task "struct rotary_task":
        const float *x
        const float *cosine
        const float *sine
        const int64_t *positions
        float *y
        int64_t heads
        int64_t width
        int64_t pairs
        bint interleaved
        float direction
    ctypedef struct rotary_kernels "const struct rotary_kernels":
        kernel *rotate
    rotary_kernels *rotary_kernels_for(int)

cdef const runtime *shared = the_runtime()


def rotary(x_NHK, positions_N, frequencies, *, interleaved=False, double factor=1.0, out=None, int threads=1):
    """Same as `ops.rotary.rotary`; the angles of the first positions are computed once and kept."""
    x, positions = border.checked(x_NHK, "x", 3), border.integers(positions_N, "positions", 1)
    border.same_shape(positions, "positions", x.shape[:1])
    low, high = (int(positions.min()), int(positions.max())) if len(positions) else (0, 0)
    if 2 * len(frequencies) > x.shape[2] or low < 0 or high >= LONGEST_TABLE:
        y, saved = reference.rotary(x, positions, frequencies, interleaved=interleaved, factor=factor)
        return border.delivered(y, out), saved
    cosine, sine = angles(frequencies, factor, max(256, rounded_up(high + 1)))
    y = rotate(x, cosine, sine, positions, interleaved, 1.0, out, threads)
    return y, (cosine[positions], sine[positions], interleaved)


def rotary_backward(dy_NHK, saved, *, out=None, int threads=1):
    """Same as `ops.rotary.rotary_backward`."""
    cos_NF, sin_NF, interleaved = saved
    dy = border.checked(dy_NHK, "dy", 3)
    cosine, sine = border.checked(cos_NF, "cos", 2), border.checked(sin_NF, "sin", 2)
    border.same_shape(cosine, "cos", (dy.shape[0], min(cosine.shape[1], dy.shape[2] // 2)))
    border.same_shape(sine, "sin", cosine.shape)
    return rotate(dy, cosine, sine, None, interleaved, -1.0, out, threads)


LONGEST_TABLE = 65536  # positions whose angles are kept


@functools.lru_cache(maxsize=16)
def angles(frequencies, factor, n_positions):
    """Cosines and sines, float32, (n_positions, F) each: the op's own computation, in float64."""
    x = np.zeros((n_positions, 1, 2 * len(frequencies)), border.FLOAT32)
    _, (cosine, sine, _) = reference.rotary(x, np.arange(n_positions), frequencies, factor=factor)
    cosine.flags.writeable = sine.flags.writeable = False
    return cosine, sine


cdef rotate(x, cosine, sine, positions, bint interleaved, float direction, out, int threads):
    y = border.output(out, x.shape, x, cosine, sine)
    cdef rotary_task task
    task.x, task.y = <const float *>reading(x), <float *>writing(y)
    task.cosine, task.sine = <const float *>reading(cosine), <const float *>reading(sine)
    task.positions = NULL
    if positions is not None:
        task.positions = <const int64_t *>reading(positions)
    task.heads, task.width, task.pairs = x.shape[1], x.shape[2], cosine.shape[1]
    task.interleaved, task.direction = interleaved, direction
    cdef int64_t n = x.shape[0]
    cdef kernel *work = rotary_kernels_for(shared.chosen).rotate
    with nogil:
        parallel_rows(work, &task, sizeof(task), n, 1 + 65536 // (1 + task.heads * task.width), threads)
    return border.delivered(y, out)
