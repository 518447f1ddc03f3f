"""The Transformer against `torch.nn.Transformer` between our embeddings: logits, memory, loss and every gradient."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from minislm.layers.base import Context, Grads, Tape
from minislm.models.transformer import Transformer, TransformerConfig
from minislm.ops.loss import cross_entropy, cross_entropy_backward
from minislm.testing.batches import sample_ids

torch = pytest.importorskip("torch", reason="needs the oracle extra: pip install -e '.[oracle]'")
pytestmark = pytest.mark.oracle

LENGTHS, SOURCE_LENGTHS = np.array([4, 6]), np.array([7, 5])
PARTS = {
    "attention": "self_attn",
    "cross_attention": "multihead_attn",
    "mlp.up": "linear1",
    "mlp.down": "linear2",
    "norm_1": "norm1",
    "norm_2": "norm2",
    "norm_3": "norm3",
}


def torch_model(ours):
    """Their model with our parameters; their parameters by our names, the three packed projections as views."""
    config = ours.config
    sizes = config.layers[0]
    theirs = torch.nn.Transformer(
        config.d_model,
        sizes.n_heads,
        len(config.encoder_layers),
        len(config.layers),
        sizes.d_ff,
        dropout=0.0,
        activation=config.activation,
        layer_norm_eps=config.norm_eps,
        batch_first=True,
        dtype=torch.float64,
    )
    theirs.encoder.norm = theirs.decoder.norm = None  # a norm after the last block, which the paper does not have
    found = dict(theirs.named_parameters())
    d = config.d_model

    def place(name):
        """Their parameter of one of our arrays, and which of its rows."""
        side, i, module, part, kind = re.fullmatch(
            r"(\w+)\.blocks\.(\d+)\.(mlp\.\w+|\w+)(?:\.(query|key|value|output))?\.(weight|bias)", name
        ).groups()
        path = f"{side}.layers.{i}.{PARTS[module]}"
        if part is None:
            return found[f"{path}.{kind}"], slice(None)
        if part == "output":
            return found[f"{path}.out_proj.{kind}"], slice(None)
        start = ("query", "key", "value").index(part) * d
        return found[f"{path}.in_proj_{kind}"], slice(start, start + d)

    places = {name: place(name) for name in ours.parameters() if name != "embedding.weight"}
    with torch.no_grad():
        for name, (parameter, rows) in places.items():
            parameter[rows] = torch.tensor(ours.parameters()[name])
    return theirs, places


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_memory_logits_loss_and_every_gradient_equal_torch(activation):
    config = TransformerConfig.uniform(
        vocab_size=19, d_model=12, context=8, n_layers=2, n_encoder_layers=3, n_heads=2, d_ff=17, activation=activation
    )
    ours = Transformer.create(config, seed=1, dtype=np.float64)
    rng = np.random.default_rng(2)
    ours = ours.with_arrays({k: v + 0.3 * rng.standard_normal(v.shape) for k, v in ours.arrays().items()})
    ids, source, targets = sample_ids(ours, 2, 6), sample_ids(ours, 2, 7, seed=3), sample_ids(ours, 2, 6, seed=4)
    targets = np.where(np.arange(6) < LENGTHS[:, None], targets, -100)
    tape, grads = Tape(["memory"]), Grads()
    context = Context(lengths_B=LENGTHS, source_BS=source, source_lengths_B=SOURCE_LENGTHS)
    logits = ours.forward(ids, context, tape)
    loss, saved = cross_entropy(logits.reshape(-1, 19), targets.reshape(-1))
    ours.backward(cross_entropy_backward(1.0, saved).reshape(logits.shape), tape, grads)

    theirs, places = torch_model(ours)
    table = torch.tensor(ours.parameters()["embedding.weight"], requires_grad=True)

    def embedded(tokens):
        positions = torch.arange(tokens.shape[1], dtype=torch.float64)[:, None]
        frequencies = 10000.0 ** (-torch.arange(0, 12, 2, dtype=torch.float64) / 12)
        waves = torch.stack([(positions * frequencies).sin(), (positions * frequencies).cos()], -1).reshape(-1, 12)
        return table[torch.tensor(tokens)] * math.sqrt(12) + waves.float().double()  # our table is in float32

    padding = torch.tensor(np.arange(7) >= SOURCE_LENGTHS[:, None])
    future = torch.ones(6, 6, dtype=torch.bool).triu(1)
    memory = theirs.encoder(embedded(source), src_key_padding_mask=padding)
    hidden = theirs.decoder(embedded(ids), memory, tgt_mask=future, memory_key_padding_mask=padding)
    expected = hidden @ table.T
    expected_loss = torch.nn.functional.cross_entropy(expected.reshape(-1, 19), torch.tensor(targets).reshape(-1))
    expected_loss.backward()

    assert relative(tape.seen["memory"][~padding.numpy()], memory[~padding]) <= 1e-7
    assert relative(logits, expected) <= 1e-7
    assert abs(loss - expected_loss.item()) <= 1e-7 * expected_loss.item()
    gradients = {name: parameter.grad[rows].numpy() for name, (parameter, rows) in places.items()}
    gradients["embedding.weight"] = table.grad.numpy()
    assert set(gradients) == set(grads)
    scale = max(np.linalg.norm(gradient) for gradient in gradients.values())
    for name, gradient in gradients.items():
        # A key's bias shifts all scores of a query alike: its gradient is zero but for rounding, hence the floor.
        error = np.linalg.norm(grads[name] - gradient)
        assert error <= 1e-6 * max(np.linalg.norm(gradient), 1e-6 * scale), f"{name} differs by {error:.3g}"


def relative(got, expected):
    expected = expected.detach().numpy()
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)
