"""Every op that computes, forward and backward, against torch in float64."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest

from minislm.ops import OPS, load_op
from minislm.testing.cases import sample_cases
from minislm.testing.laws import cast
from minislm.testing.tolerances import assert_close

torch = pytest.importorskip("torch", reason="needs the oracle extra: pip install -e '.[oracle]'")
F = torch.nn.functional
pytestmark = pytest.mark.oracle

FACTOR = 1e4  # times 2.2e-16: results must agree to about 2e-12 of their largest entry


def visible(n_rows, n_queries, n_keys, causal=False, key_mask_BS=None, window=None, starts_B=None):
    """Write the mask out, key by key."""
    mask = torch.zeros(n_rows, n_queries, n_keys, dtype=torch.bool)
    for b in range(n_rows):
        for t in range(n_queries):
            position = t + (0 if starts_B is None else int(starts_B[b]))
            for s in range(n_keys):
                mask[b, t, s] = (
                    (not causal or s <= position)
                    and (window is None or abs(position - s) < window)
                    and (key_mask_BS is None or bool(key_mask_BS[b, s]))
                )
    return mask


def biases(bias, n_rows, n_queries, n_keys, starts_B=None):
    """Write the bias of every query and key out: rows x heads x queries x keys."""
    reach = bias.shape[1] // 2
    starts = torch.zeros(n_rows, dtype=torch.long) if starts_B is None else torch.tensor(starts_B)
    distance = torch.arange(n_keys) - (starts[:, None] + torch.arange(n_queries))[..., None]
    return bias[:, distance.clamp(-reach, reach) + reach].transpose(0, 1)


def attention_map(q, k, bias=None, scale=None, cap=None, **masks):
    q, k = q.transpose(1, 2), k.repeat_interleave(q.shape[2] // k.shape[2], 2).transpose(1, 2)
    mask = visible(q.shape[0], q.shape[2], k.shape[2], **masks)[:, None]
    scores = q @ k.transpose(-1, -2) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    if bias is not None:
        scores = scores + biases(bias, *mask.shape[::2], mask.shape[3], masks.get("starts_B"))
    some = mask.any(-1, keepdim=True)  # a query without keys gets zeros, not torch's nan
    return torch.softmax(torch.where(mask | ~some, scores, -torch.inf), -1) * some


def attention(q, k, v, bias=None, **options):
    v = v.repeat_interleave(q.shape[2] // v.shape[2], 2).transpose(1, 2)
    return (attention_map(q, k, bias, **options) @ v).transpose(1, 2)


def attention_packed(q, k, v, counts, firsts, lengths, bias=None, *, causal=False, **options):
    k, v = (x.to(q.dtype) for x in (k, v))
    queries = q.split(counts.tolist())
    rows = []
    for query, first, length in zip(queries, firsts.tolist(), lengths.tolist(), strict=True):
        key, value = k[first : first + length], v[first : first + length]
        if len(query) == 1 and bias is None and set(options) <= {"scale"} and length:  # PyTorch has a function for it
            mixed = F.scaled_dot_product_attention(
                *(x.transpose(0, 1) for x in (query, key, value)), enable_gqa=True, **options
            ).transpose(0, 1)
        else:
            starts = np.array([length - len(query)])
            mixed = attention(query[None], key[None], value[None], bias, causal=causal, starts_B=starts, **options)[0]
        rows.append(mixed)
    return torch.cat(rows)


def rotary(x, positions, frequencies, interleaved=False, factor=1.0):
    """Multiply complex numbers."""
    n_pairs = len(frequencies)
    if n_pairs == 0 or len(x) == 0:
        return x * 1.0
    part, rest = x[..., : 2 * n_pairs], x[..., 2 * n_pairs :]
    pairs = part.unflatten(-1, (-1, 2)) if interleaved else part.unflatten(-1, (2, -1)).transpose(-1, -2)
    angles = [[float(n) * frequency for frequency in frequencies] for n in positions]
    angles = torch.tensor(angles, dtype=x.dtype).reshape(len(x), 1, n_pairs)
    turned = torch.view_as_real(
        torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.full_like(angles, factor), angles)
    )
    return torch.cat([turned.flatten(-2) if interleaved else turned.transpose(-1, -2).flatten(-2), rest], -1)


def dropout(x, rate, key):
    """Follow the published generator in Python's whole numbers, entry by entry."""

    def mix(z):
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    start = 0
    for part in key:
        start = mix(((start ^ part) + 0x9E3779B97F4A7C15) % 2**64)
    kept = [mix((start + (i + 1) * 0x9E3779B97F4A7C15) % 2**64) >= rate * 2**64 for i in range(x.numel())]
    return x * torch.tensor(kept, dtype=x.dtype).reshape(x.shape) / (1 - rate)


def cross_entropy(logits, targets, ignore=-100, label_smoothing=0.0):
    total = F.cross_entropy(logits, targets, ignore_index=ignore, label_smoothing=label_smoothing, reduction="sum")
    return total / max(int((targets != ignore).sum()), 1)


def kl_divergence(logits, teacher, temperature=1.0, reverse=False, keep_N=None):
    student, teacher = (F.log_softmax(x / temperature, -1) for x in (logits, teacher))
    of, to = (student, teacher) if reverse else (teacher, student)
    rows = F.kl_div(to, of, reduction="none", log_target=True).sum(-1)
    keep = torch.ones(len(rows), dtype=torch.bool) if keep_N is None else torch.tensor(keep_N)
    return temperature**2 * rows[keep].sum() / max(int(keep.sum()), 1)


def relative_entropy(p, target, keep_N=None):
    rows = F.kl_div(p.log(), target, reduction="none").sum(-1)
    return mean(rows if keep_N is None else rows[torch.tensor(keep_N)])


def mean(values):
    return values.sum() / max(values.numel(), 1)


ORACLES = {
    "linear": F.linear,
    "linear_dx": lambda dy, w: dy @ w,
    "linear_dw": lambda dy, x: torch.einsum("no,ni->oi", dy, x),
    "add": torch.add,
    "add_bias": torch.add,
    "scale": lambda x, s: x @ torch.diag(s),
    "embedding": F.embedding,
    "layer_norm": lambda x, w, b, eps: F.layer_norm(x, w.shape, w, b, eps),
    "rms_norm": lambda x, w, eps: F.rms_norm(x, w.shape, w, eps),
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "silu_gate": lambda gate, up: F.silu(gate) * up,
    "gelu_gate": lambda gate, up: F.gelu(gate) * up,
    "gelu_tanh_gate": lambda gate, up: F.gelu(gate, approximate="tanh") * up,
    "softmax": lambda x: F.softmax(x, -1),
    "attention": attention,
    "attention_map": attention_map,
    "attention_packed": attention_packed,
    "rotary": rotary,
    "dropout": dropout,
    "cross_entropy": cross_entropy,
    "kl_divergence": kl_divergence,
    "relative_entropy": relative_entropy,
    "mean_square": lambda x, target: mean((x - target) ** 2),
    "cosine_distance": lambda x, target: mean(1 - F.cosine_similarity(x, target, dim=-1)),
}


def test_every_gradient_has_an_oracle():
    assert {op for op, row in OPS.items() if row.gradients} <= set(ORACLES)


@pytest.mark.parametrize("op", ORACLES)
def test_equals_torch(op, rng):
    names = [name.split("_")[0] for name in inspect.signature(load_op(op)).parameters]
    for args, kwargs in sample_cases(op):
        tensors = [torch.tensor(arg) if isinstance(arg, np.ndarray) else arg for arg in args]
        wanted = [tensors[names.index(name)] for name in OPS[op].gradients if names.index(name) < len(args)]
        for tensor in wanted:
            tensor.requires_grad_()
        expected = ORACLES[op](*tensors, **kwargs)
        result = load_op(op)(*cast(args, np.float64), **kwargs)
        if not OPS[op].gradients:
            assert_close(result, expected, factor=FACTOR, name=op)
            continue
        y, saved = result
        assert_close(y, expected.detach(), factor=FACTOR, name=op)
        dy = rng.normal(size=np.shape(y))
        gradients = load_op(f"{op}_backward")(float(dy) if isinstance(y, float) else dy, saved)
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
        expected.backward(torch.tensor(dy))
        for tensor, gradient, name in zip(wanted, gradients, OPS[op].gradients, strict=False):
            assert_close(gradient, tensor.grad, factor=FACTOR, name=f"d{name} of {op}")


def test_adamw_equals_torch(rng):
    w, decay = rng.normal(size=37), np.where(rng.random(37) < 0.5, 0.1, 0.0)
    m, v = np.zeros_like(w), np.zeros_like(w)
    decayed, free = (torch.nn.Parameter(torch.tensor(w[mask])) for mask in (decay > 0, decay == 0))
    options = {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-7}
    groups = [{"params": [decayed], "weight_decay": 0.1}, {"params": [free], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, **options)
    adamw = load_op("adamw")
    for step in range(1, 8):
        dw = rng.normal(size=37) * 10.0 ** rng.integers(-6, 3)
        decayed.grad, free.grad = torch.tensor(dw[decay > 0]), torch.tensor(dw[decay == 0])
        optimizer.step()
        adamw(w, dw, m, v, step=step, learning_rate=0.02, beta1=0.8, beta2=0.95, eps=1e-7, decay=decay)
    assert_close(w[decay > 0], decayed.detach(), factor=FACTOR, name="decayed parameters")
    assert_close(w[decay == 0], free.detach(), factor=FACTOR, name="parameters without decay")


def test_sinusoidal_positions_follow_the_paper():
    table = load_op("sinusoidal_positions")(9, 7)
    assert table.dtype == np.float32
    for position in range(9):
        for column in range(7):
            angle = position / 10000 ** ((column - column % 2) / 7)
            assert abs(table[position, column] - (math.cos if column % 2 else math.sin)(angle)) < 1e-6


def test_sinusoidal_positions_in_the_order_of_marian():
    table = load_op("sinusoidal_positions")(9, 7, interleaved=False)
    np.testing.assert_array_equal(table, load_op("sinusoidal_positions")(9, 7)[:, [0, 2, 4, 6, 1, 3, 5]])
