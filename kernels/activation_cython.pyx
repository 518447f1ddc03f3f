"""Compiled activations: checks, then the C of `c/activation.c`. Arrays of any shape, seen as one row of numbers."""

from minislm.kernels import border

from native cimport int64_t, kernel, parallel_rows, reading, runtime, the_runtime, writing


cdef extern from "activation.h" nogil:
    ctypedef struct activation_task "struct activation_task":
        const float *dy
        const float *x
        const float *up
        float *y
        float *dup
        int64_t n, width
    ctypedef struct activation_kernels "const struct activation_kernels":
        kernel *gelu
        kernel *gelu_tanh
        kernel *relu
        kernel *silu
        kernel *tanh
        kernel *silu_gate
        kernel *gelu_gate
        kernel *gelu_tanh_gate
        kernel *gelu_backward
        kernel *gelu_tanh_backward
        kernel *relu_backward
        kernel *silu_gate_backward
    activation_kernels *activation_kernels_for(int)

cdef const runtime *shared = the_runtime()


def gelu(x, *, out=None, int threads=1):
    """Same as `ops.activation.gelu`; erf by the op's own rational function."""
    return one_input(activation_kernels_for(shared.chosen).gelu, x, out, threads)


def gelu_tanh(x, *, out=None, int threads=1):
    """Same as `ops.activation.gelu_tanh`, by one exponential instead of a tangent."""
    return one_input(activation_kernels_for(shared.chosen).gelu_tanh, x, out, threads)


def gelu_backward(dy, saved, *, out=None, int threads=1):
    """Same as `ops.activation.gelu_backward`."""
    return one_input_backward(activation_kernels_for(shared.chosen).gelu_backward, dy, saved, out, threads)


def gelu_tanh_backward(dy, saved, *, out=None, int threads=1):
    """Same as `ops.activation.gelu_tanh_backward`."""
    return one_input_backward(activation_kernels_for(shared.chosen).gelu_tanh_backward, dy, saved, out, threads)


def relu(x, *, out=None, int threads=1):
    """Same as `ops.activation.relu`."""
    return one_input(activation_kernels_for(shared.chosen).relu, x, out, threads)


def silu(x, *, out=None, int threads=1):
    """Same as `ops.activation.silu`."""
    return one_input(activation_kernels_for(shared.chosen).silu, x, out, threads)


def tanh(x, *, out=None, int threads=1):
    """Same as `ops.activation.tanh`."""
    y, _ = one_input(activation_kernels_for(shared.chosen).tanh, x, out, threads)
    return y, (y,)


def relu_backward(dy, saved, *, out=None, int threads=1):
    """Same as `ops.activation.relu_backward`."""
    return one_input_backward(activation_kernels_for(shared.chosen).relu_backward, dy, saved, out, threads)


cdef one_input(kernel *work, x, out, int threads):
    x = border.checked(x, "x")
    y = border.output(out, x.shape, *(() if out is x else (x,)))
    cdef activation_task task
    task.x, task.y = <const float *>reading(x), <float *>writing(y)
    run(work, &task, x, threads)
    return border.delivered(y, out), (x,)


cdef one_input_backward(kernel *work, dy, saved, out, int threads):
    (x,) = saved
    dy, x = border.checked(dy, "dy"), border.checked(x, "x")
    border.same_shape(dy, "dy", x.shape)
    dx = border.output(out, x.shape, dy, x)
    cdef activation_task task
    task.dy, task.x, task.y = <const float *>reading(dy), <const float *>reading(x), <float *>writing(dx)
    run(work, &task, x, threads)
    return border.delivered(dx, out)


def silu_gate(gate, up, *, out=None, int threads=1):
    """Same as `ops.gate.silu_gate`."""
    return gated(activation_kernels_for(shared.chosen).silu_gate, gate, up, out, threads)


def gelu_gate(gate, up, *, out=None, int threads=1):
    """Same as `ops.gate.gelu_gate`."""
    return gated(activation_kernels_for(shared.chosen).gelu_gate, gate, up, out, threads)


def gelu_tanh_gate(gate, up, *, out=None, int threads=1):
    """Same as `ops.gate.gelu_tanh_gate`."""
    return gated(activation_kernels_for(shared.chosen).gelu_tanh_gate, gate, up, out, threads)


cdef gated(kernel *work, gate, up, out, int threads):
    gate, up = border.checked(gate, "gate"), border.checked(up, "up")
    border.same_shape(up, "up", gate.shape)
    y = border.output(out, gate.shape, gate, up)
    cdef activation_task task
    task.x, task.up, task.y = <const float *>reading(gate), <const float *>reading(up), <float *>writing(y)
    run(work, &task, gate, threads)
    return border.delivered(y, out), (gate, up)


def silu_gate_backward(dy, saved, *, out=None, int threads=1):
    """Same as `ops.gate.silu_gate_backward`."""
    gate, up = saved
    dy, gate, up = border.checked(dy, "dy"), border.checked(gate, "gate"), border.checked(up, "up")
    border.same_shape(dy, "dy", gate.shape)
    border.same_shape(up, "up", gate.shape)
    dgate, dup = border.output(out, gate.shape, dy, gate, up), border.output(None, gate.shape)
    cdef activation_task task
    task.dy, task.x, task.up = <const float *>reading(dy), <const float *>reading(gate), <const float *>reading(up)
    task.y, task.dup = <float *>writing(dgate), <float *>writing(dup)
    run(activation_kernels_for(shared.chosen).silu_gate_backward, &task, gate, threads)
    return border.delivered(dgate, out), dup


cdef int run(kernel *work, activation_task *task, like, int threads) except -1:
    """Run it on arrays of the shape of one of them."""
    task.n, task.width = like.size, border.row_width(like)
    with nogil:
        parallel_rows(work, task, sizeof(task[0]), -(-task.n // task.width), 1 + 32768 // task.width, threads)
    return 0
