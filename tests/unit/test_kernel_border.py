"""Checks at the border of the kernels: what would otherwise be read or written outside an array."""

from __future__ import annotations

import numpy as np
import pytest

from minislm.errors import DataError
from minislm.testing.kernels import kernel_cases

kernels = pytest.importorskip("minislm.kernels")

TECHNOLOGIES = ("cython", "numba")


@pytest.fixture(params=TECHNOLOGIES)
def load(request):
    """Return a function that loads a kernel of one technology."""
    if request.param == "numba":
        pytest.importorskip("numba")

    def of_name(op):
        [function] = [row.function for row in kernels.KERNELS if (row.op, row.technology) == (op, request.param)]
        module, _, name = function.partition(":")
        return getattr(pytest.importorskip(f"minislm.kernels.{module}"), name)

    return of_name


def case(op):
    """Return the second sampled case of an op, with arrays that may be changed."""
    return kernel_cases(op)[1]


def test_shapes_must_agree(load):
    (x, w, b), options = case("layer_norm")
    for args in ((x, w[1:], b), (x, w, b[1:]), (x, w[None], b), (x[0], w, b)):
        with pytest.raises(ValueError, match="must have"):
            load("layer_norm")(*args, **options)
    with pytest.raises(ValueError, match="up must have shape"):
        load("silu_gate")(x, x[1:])


def test_saved_arrays_must_agree(load):
    (dy, (x, w, mean, r)), _ = case("layer_norm_backward")
    for saved in ((x[1:], w, mean, r), (x, w[1:], mean, r), (x, w, mean[1:], r), (x, w, mean, r[1:])):
        with pytest.raises(ValueError, match="must have shape"):
            load("layer_norm_backward")(dy, saved)
    (dloss, (logits, top, total, targets, ignore, smoothing)), _ = case("cross_entropy_backward")
    bad = np.where(targets == ignore, ignore, logits.shape[1])
    with pytest.raises(IndexError):
        load("cross_entropy_backward")(dloss, (logits, top, total, bad, ignore, smoothing))


@pytest.mark.parametrize("target", [-1, 5, 2**40])
def test_targets_are_refused_as_the_op_refuses_them(load, target):
    (logits, targets), options = case("cross_entropy")
    assert logits.shape[1] == 5
    targets[0] = target
    with pytest.raises(DataError) as caught:
        load("cross_entropy")(logits, targets, **options)
    assert caught.value.code == "target_out_of_range"


def test_packed_sequences_lie_inside_their_arrays(load):
    (q, k, v, counts, firsts, lengths), options = case("attention_packed")
    kernel = load("attention_packed")
    for bad in (firsts - 100, firsts + len(k)):
        with pytest.raises(IndexError, match="firsts"):
            kernel(q, k, v, counts, bad, lengths, **options)
    for bad in (lengths - 100, lengths + len(k)):
        with pytest.raises(IndexError, match="lengths"):
            kernel(q, k, v, counts, firsts, bad, **options)
    with pytest.raises(IndexError, match=r"firsts \+ lengths"):
        kernel(q, k, v, counts, firsts * 0 + len(k) - 1, lengths * 0 + 2, **options)
    for bad in (counts + 1, counts * 0):
        with pytest.raises(ValueError, match="add up"):
            kernel(q, k, v, bad, firsts, lengths, **options)
    with pytest.raises(TypeError, match="firsts"):
        kernel(q, k, v, counts, firsts.astype(np.float64), lengths, **options)
    with pytest.raises(ValueError, match="cannot share"):
        kernel(q[:, :3], k, v, counts, firsts, lengths, **options)


def test_out_must_fit(load):
    (x,), _ = case("gelu")
    kernel = load("gelu")
    with pytest.raises(ValueError, match="out must have shape"):
        kernel(x, out=np.empty(x.size, np.float32))
    with pytest.raises(TypeError, match="out"):
        kernel(x, out=np.empty(x.shape, np.float64))
    frozen = np.empty(x.shape, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        kernel(x, out=frozen)


def test_adamw_updates_only_what_it_can(load):
    (w, dw, m, v), options = case("adamw")
    kernel = load("adamw")
    with pytest.raises(ValueError, match="m is updated in place"):
        kernel(w, dw, np.repeat(m, 2)[::2], v, **options)
    with pytest.raises(ValueError, match="must have shape"):
        kernel(w[1:], dw, m, v, **options)
    w.flags.writeable = False
    with pytest.raises(ValueError, match="w is updated in place"):
        kernel(w, dw, m, v, **options)


def test_lists_are_refused(load):
    with pytest.raises(TypeError, match="x must be a NumPy array"):
        load("gelu")([1.0, 2.0])
