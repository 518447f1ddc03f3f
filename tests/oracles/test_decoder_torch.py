"""The whole decoder against the same model written in torch: logits, loss and every gradient, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minislm.layers.base import Context, Grads, Tape
from minislm.models.decoder import Decoder
from minislm.ops.loss import cross_entropy, cross_entropy_backward
from minislm.testing.batches import sample_ids
from tests.contracts.test_models import DECODERS, created, named

torch = pytest.importorskip("torch", reason="needs the oracle extra: pip install -e '.[oracle]'")
pytestmark = pytest.mark.oracle


def oracle_logits(config, p, ids):
    """The decoder, written with torch's own functions over a dictionary of parameters."""
    functional = torch.nn.functional

    def linear(x, path):
        return functional.linear(x, p[f"{path}.weight"], p.get(f"{path}.bias"))

    def norm(x, path):
        if config.norm == "rms":
            return functional.rms_norm(x, x.shape[-1:], p[f"{path}.weight"], config.norm_eps)
        return functional.layer_norm(x, x.shape[-1:], p[f"{path}.weight"], p.get(f"{path}.bias"), config.norm_eps)

    def rotate(x):
        n, width = x.shape[-2:]
        frequencies = config.rotaries[0].base ** (-torch.arange(0, width, 2, dtype=x.dtype) / width)
        angles = torch.arange(n, dtype=x.dtype)[:, None] * frequencies
        left, right = x.chunk(2, dim=-1)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)

    activations = {
        "gelu": functional.gelu,
        "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
        "relu": functional.relu,
        "silu": functional.silu,
    }
    act = activations[config.activation]
    b, t = ids.shape
    x = p["embedding.weight"][ids]
    if config.positions == "learned":
        x = x + p["positions.weight"][:t]
    for i, sizes in enumerate(config.layers):
        path, h = f"blocks.{i}", norm(x, f"blocks.{i}.norm_1")
        q, k, v = (
            linear(h, f"{path}.attention.{part}").view(b, t, n, sizes.d_head).transpose(1, 2)
            for part, n in (("query", sizes.n_heads), ("key", sizes.n_kv_heads), ("value", sizes.n_kv_heads))
        )
        if config.positions == "rotary":
            q, k = rotate(q), rotate(k)
        repeat = sizes.n_heads // sizes.n_kv_heads
        k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        scores = q @ k.transpose(-1, -2) / math.sqrt(sizes.d_head)
        if config.attention_cap:
            scores = config.attention_cap * torch.tanh(scores / config.attention_cap)
        scores = scores.masked_fill(torch.ones(t, t, dtype=torch.bool).triu(1), -math.inf)
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, -1)
        x = x + linear(y, f"{path}.attention.output")
        h = norm(x, f"{path}.norm_2")
        up = linear(h, f"{path}.mlp.up")
        up = act(up) if config.mlp == "plain" else act(linear(h, f"{path}.mlp.gate")) * up
        x = x + linear(up, f"{path}.mlp.down")
    x = norm(x, "final_norm")
    return functional.linear(x, p["embedding.weight"]) if config.tied else linear(x, "head")


@named(DECODERS)
def test_logits_loss_and_every_gradient_equal_torch(config):
    model: Decoder = created(config, np.float64)
    ids, targets = sample_ids(model, 2, 7), sample_ids(model, 2, 7, seed=5).reshape(-1)
    tape, grads = Tape(), Grads()
    logits = model.forward(ids, Context(), tape)
    loss, saved = cross_entropy(logits.reshape(-1, logits.shape[-1]), targets)
    model.backward(cross_entropy_backward(1.0, saved).reshape(logits.shape), tape, grads)

    parameters = {name: torch.tensor(array, requires_grad=True) for name, array in model.parameters().items()}
    expected = oracle_logits(config, parameters, torch.tensor(ids))
    expected_loss = torch.nn.functional.cross_entropy(expected.reshape(-1, expected.shape[-1]), torch.tensor(targets))
    expected_loss.backward()

    assert relative(logits, expected) <= 1e-6
    assert abs(loss - expected_loss.item()) <= 1e-6 * expected_loss.item()
    scale = max(float(p.grad.norm()) for p in parameters.values())
    for name, parameter in parameters.items():
        # A key's bias shifts all scores of a query alike: its gradient is zero but for rounding, hence the floor.
        error = np.linalg.norm(grads[name] - parameter.grad.numpy())
        assert error <= 1e-6 * max(float(parameter.grad.norm()), 1e-6 * scale), f"{name} differs by {error:.3g}"


def relative(got, expected):
    expected = expected.detach().numpy()
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)
