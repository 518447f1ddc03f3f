"""Attention against a loop over every row, head, query and key; masks that hide everything; packed sequences."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minislm.dispatch import backend, ops, threads
from minislm.ops.attention import attention, attention_backward
from minislm.ops.packed import attention_packed
from minislm.testing.tolerances import assert_close


def by_loops(q, k, v, bias=None, causal=False, key_mask_BS=None, window=None, starts_B=None, scale=None, cap=None):
    y = np.zeros_like(q)
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    heads_per_group = q.shape[2] // k.shape[2]
    for b, t, h in np.ndindex(q.shape[:3]):
        position = t + (0 if starts_B is None else starts_B[b])
        weights = {}
        for s in range(k.shape[1]):
            if causal and s > position:
                continue
            if window is not None and abs(position - s) >= window:
                continue
            if key_mask_BS is not None and not key_mask_BS[b, s]:
                continue
            score = scale * float(q[b, t, h] @ k[b, s, h // heads_per_group])
            if cap is not None:
                score = cap * math.tanh(score / cap)
            if bias is not None:
                reach = bias.shape[1] // 2
                score += bias[h, reach + min(max(s - position, -reach), reach)]
            weights[s] = math.exp(score)
        for s, weight in weights.items():
            y[b, t, h] += weight / sum(weights.values()) * v[b, s, h // heads_per_group]
    return y


@st.composite
def calls(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    b, t, s, g, h1, k = (draw(st.integers(low, high)) for low, high in ((1, 3), (0, 6), (0, 7), (1, 3), (1, 3), (1, 4)))
    q = rng.normal(size=(b, t, g * h1, k))
    key, value = rng.normal(size=(2, b, s, g, k))
    options = {"causal": draw(st.booleans())}
    if draw(st.booleans()):
        options["key_mask_BS"] = rng.random((b, s)) < draw(st.sampled_from([0.0, 0.3, 0.8]))
    if draw(st.booleans()):
        options["window"] = draw(st.integers(1, 5))
    if draw(st.booleans()):
        options["starts_B"] = rng.integers(0, 6, b)
    if draw(st.booleans()):
        options["scale"] = draw(st.sampled_from([1.0, 0.3]))
    if draw(st.booleans()):
        options["cap"] = draw(st.sampled_from([0.5, 20.0]))
    bias = rng.normal(size=(g * h1, 2 * draw(st.integers(0, 6)) + 1)) if draw(st.booleans()) else None
    return (q, key, value, bias), options


@given(calls())
def test_equals_loops(call):
    args, options = call
    y, _ = attention(*args, **options)
    assert_close(y, by_loops(*args, **options), factor=100.0, scale=10.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_query_without_keys_gives_zeros_and_no_gradient(rng, dtype):
    q, k, v, dy = rng.normal(size=(4, 2, 3, 2, 4)).astype(dtype)
    mask = np.array([[True, False, True], [False, False, False]])
    y, saved = attention(q, k, v, key_mask_BS=mask)
    assert np.all(y[1] == 0)
    assert np.all(y[0] != 0)
    assert np.all(saved[4][1] == -np.inf)
    *gradients, dbias = attention_backward(dy, saved)
    assert dbias is None
    for gradient in gradients:
        assert gradient.dtype == dtype
        assert np.isfinite(gradient).all()
        assert np.all(gradient[1] == 0)
        assert np.any(gradient[0] != 0)


def test_hidden_values_have_no_influence(rng):
    q, k, v = rng.normal(size=(3, 1, 5, 2, 4))
    before, _ = attention(q, k, v, causal=True)
    k[:, 3:], v[:, 3:] = 1e30, -1e30
    after, _ = attention(q, k, v, causal=True)
    np.testing.assert_array_equal(after[:, :3], before[:, :3])


def test_large_scores_do_not_overflow(rng):
    q, k, v = (1e4 * rng.normal(size=(3, 1, 4, 1, 8))).astype(np.float32)
    y, saved = attention(q, k, v)
    winners = (q[0, :, 0] @ k[0, :, 0].T).argmax(axis=1)
    assert_close(y[0, :, 0], v[0, winners, 0])
    assert all(np.isfinite(gradient).all() for gradient in attention_backward(np.ones_like(y), saved)[:3])


def test_inputs_may_be_views(rng):
    q, k, v, dy = (x.transpose(0, 2, 1, 3) for x in rng.normal(size=(4, 2, 3, 5, 4)))
    y, saved = attention(q, k, v, causal=True)
    copies = [np.ascontiguousarray(x) for x in (q, k, v)]
    same, same_saved = attention(*copies, causal=True)
    assert_close(y, same)
    pairs = zip(attention_backward(dy, saved), attention_backward(dy.copy(), same_saved), strict=True)
    for gradient, expected in list(pairs)[:3]:
        assert_close(gradient, expected)


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (4, 1)])
def test_grouped_heads_equal_repeated_heads(rng, heads, groups):
    q = rng.normal(size=(2, 3, heads, 5))
    k, v = rng.normal(size=(2, 2, 4, groups, 5))
    repeated = (np.repeat(x, heads // groups, axis=2) for x in (k, v))
    assert_close(attention(q, k, v)[0], attention(q, *repeated)[0])


def test_starts_continue_a_sequence(rng):
    q, k, v = rng.normal(size=(3, 2, 7, 2, 4))
    whole, _ = attention(q, k, v, causal=True, window=3)
    tail, _ = attention(q[:, 4:], k, v, causal=True, window=3, starts_B=np.array([4, 4]))
    assert_close(tail, whole[:, 4:])


@pytest.mark.parametrize("window", [None, 1, 3, 50])
def test_packed_queries_stand_at_the_last_keys(rng, window):
    k, v = rng.normal(size=(2, 30, 2, 4))
    q = rng.normal(size=(6, 6, 4))
    counts, firsts, lengths = np.array([1, 3, 2]), np.array([20, 1, 0]), np.array([9, 12, 2])
    y = attention_packed(q, k, v, counts, firsts, lengths, causal=True, window=window)
    for row, (b, position) in enumerate([(0, 8), (1, 9), (1, 10), (1, 11), (2, 0), (2, 1)]):
        first = firsts[b] if window is None else firsts[b] + max(0, position - window + 1)
        seen = slice(first, firsts[b] + position + 1)
        expected, _ = attention(q[row][None, None], k[None, seen], v[None, seen])
        assert_close(y[row], expected[0, 0])


def test_packed_queries_without_keys_give_zeros(rng):
    k, v = rng.normal(size=(2, 3, 1, 2))
    assert np.all(attention_packed(np.ones((1, 2, 2)), k, v, np.array([1]), np.array([0]), np.array([0])) == 0)


@pytest.mark.parametrize("op", ["attention_packed", "attention_packed_int8"])
@pytest.mark.parametrize("options", [{}, {"window": 300}, {"cap": 5.0}])
def test_packed_rows_do_not_know_each_other(rng, options, op):
    """The same bits alone, in any company, cut into any passes, and for every number of threads."""
    n_keys, heads = 1100, 3  # more keys than a span of the compiled kernel, more rows than its tile
    stored = [*rng.normal(size=(2, n_keys, 1, 20)).astype(np.float32)]
    if op == "attention_packed_int8":
        stored = bytes_of(*stored)
    q = rng.normal(size=(n_keys, heads, 20)).astype(np.float32)
    bias = rng.normal(size=(heads, 41)).astype(np.float32)
    where = np.array([n_keys]), np.array([0]), np.array([n_keys])
    run = functools.partial(getattr(ops, op), causal=True, **options)
    whole = run(q, *stored, *where, bias)
    try:
        before = threads()
        for number in (1, 8):
            threads(number)
            for cuts in ([1099], [1, 600], [513, 514, 1090]):
                for start, end in itertools.pairwise([0, *cuts, n_keys]):
                    where = np.array([end - start]), np.array([0]), np.array([end])
                    assert same(run(q[start:end], *stored, *where, bias), whole[start:end], op)
            rows = np.array([3, 40, 700, 1099])
            where = np.ones(4, np.int64), np.zeros(4, np.int64), rows + 1
            assert same(run(q[rows], *stored, *where, bias), whole[rows], op)
    finally:
        threads(before)


def same(actual, expected, op):
    """Whether two arrays have the same bits; in NumPy, whose products depend on the number of rows, nearly the same."""
    if backend()[op].tier == "numpy":
        return bool(np.allclose(actual, expected, rtol=1e-4, atol=1e-5))
    return actual.tobytes() == expected.tobytes()


def bytes_of(*arrays):
    """Store rows of keys and of values as bytes; return these, and their scales."""
    codes = [np.zeros(x_SGK.shape, np.int8) for x_SGK in arrays]
    scales = [np.zeros(x_SGK.shape[:2], np.float32) for x_SGK in arrays]
    for x_SGK, rows, own in zip(arrays, codes, scales, strict=True):
        ops.store_rows(x_SGK, np.arange(len(x_SGK)), rows, own)
    return [*codes, *scales]


@pytest.mark.parametrize(
    ("size", "sink", "bound"), [(1.0, False, 0.011), (0.1, False, 0.003), (4.0, False, 0.015), (1.0, True, 0.015)]
)
def test_whole_numbers_cost_about_what_the_bytes_of_keys_and_values_do(rng, size, sink, bound):
    """Against the same bytes as floats: flat, steep, and with a key that takes most of the weight for a tiny value."""
    q, k, v = rng.normal(size=(3, 1000, 2, 64)).astype(np.float32)
    q *= size
    if sink:
        q[..., 0], k[..., 0], k[0, :, 0], v[0] = 4.0, 0.0, 16.0, 1e-3 * v[0]
    stored, where = bytes_of(k, v), (np.array([1000]), np.array([0]), np.array([1000]))
    floats = (codes * scales[..., None] for codes, scales in zip(stored[:2], stored[2:], strict=True))
    expected = ops.attention_packed(q, *floats, *where, causal=True)[200:]
    got = ops.attention_packed_int8(q, *stored, *where, causal=True)[200:]
    assert 0 < np.sqrt(np.square(got - expected).mean() / np.square(expected).mean()) < bound


def test_bytes_that_nobody_sees_have_no_influence(rng):
    q, k, v = rng.normal(size=(3, 150, 2, 20)).astype(np.float32)
    stored, where = bytes_of(k, v), (np.array([150]), np.array([0]), np.array([150]))
    before = ops.attention_packed_int8(q, *stored, *where, causal=True)
    stored[0][100:], stored[1][100:], stored[3][100:] = 127, -127, np.nan
    after = ops.attention_packed_int8(q, *stored, *where, causal=True)
    np.testing.assert_array_equal(after[:100], before[:100])
    assert np.isnan(after[100:]).all()
