"""Compression against torch: the gradients that training sees, and the decompositions."""

from __future__ import annotations

import numpy as np
import pytest

from minislm.compression.distil import Distil
from minislm.compression.distillation import Distillation
from minislm.compression.low_rank import factorised
from minislm.config import Head
from minislm.layers.base import PLAIN, Grads, Tape
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.models.encoder import Encoder, EncoderConfig
from minislm.ops.formats import format_named
from minislm.testing.batches import sample_ids
from minislm.training.data import Batch
from minislm.training.objective import NextToken, Tasks
from minislm.training.settings import TrainSettings
from minislm.weights.fake_quantized import FakeQuantized
from minislm.weights.masked import Masked

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch")


@pytest.mark.parametrize(("temperature", "hard_weight"), [(1.0, 0.5), (2.0, 0.1), (4.0, 0.0), (0.5, 1.0)])
def test_distillation_loss_and_gradient(temperature, hard_weight):
    sizes = DecoderConfig.uniform(vocab_size=19, d_model=8, context=6, n_layers=1, n_heads=2)
    student, teacher = (Decoder.create(sizes, seed=seed, dtype=np.float64) for seed in (1, 2))
    noisy = {name: 20 * array for name, array in teacher.arrays().items() if name == "embedding.weight"}
    teacher = teacher.with_arrays(noisy)
    ids = sample_ids(student, 3, 6)
    batch = Batch(ids, np.roll(ids, -1, axis=1))
    loss, dlogits = Distillation(teacher, temperature, hard_weight).loss(student, batch, PLAIN, Tape(), Grads())

    logits = torch.tensor(student.forward(ids), requires_grad=True)
    soft_student = torch.log_softmax(logits / temperature, -1)
    soft_teacher = torch.log_softmax(torch.tensor(teacher.forward(ids)) / temperature, -1)
    soft = torch.nn.functional.kl_div(soft_student, soft_teacher, log_target=True, reduction="sum") / ids.size
    hard = torch.nn.functional.cross_entropy(logits.reshape(-1, 19), torch.tensor(batch.targets_BT.reshape(-1)))
    expected = hard_weight * hard + (1 - hard_weight) * temperature**2 * soft
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-9)
    gradient = logits.grad.numpy()
    assert np.linalg.norm(gradient) > 1e-3
    assert np.linalg.norm(dlogits - gradient) <= 1e-9 * np.linalg.norm(gradient)


def test_the_triple_loss_is_distilberts():
    """As its published training script has it, divided by the sum of the first two weights."""
    heads = (Head("words", "masked"),)
    sizes = {"vocab_size": 19, "d_model": 8, "context": 6, "n_heads": 2, "heads": heads}
    student, teacher = (
        Encoder.create(EncoderConfig.uniform(n_layers=n, **sizes), seed=n, dtype=np.float64) for n in (1, 2)
    )
    teacher = teacher.with_arrays({"embedding.weight": 20 * teacher.embedding.weight.array})
    ids, lengths = sample_ids(student, 3, 6), np.array([6, 4, 5])
    valid = np.arange(6) < lengths[:, None]
    labels = np.where(valid & (np.arange(6) % 2 == 0), ids, -1)
    batch = Batch(ids, lengths_B=lengths, labels={"words": labels})
    method = Distil(TrainSettings(), temperature=2.0, hard_weight=2 / 7, cosine_weight=1 / 7)
    objective = Distillation(teacher, 2.0, 2 / 7, Tasks(), method.targets(student, teacher))
    loss, _ = objective.loss(student, batch, batch.context(), Tape(), Grads())

    (own, hidden), (theirs, target) = (run_encoder(model, batch) for model in (student, teacher))
    keep = torch.tensor(valid)
    soft = torch.nn.KLDivLoss(reduction="batchmean")(
        torch.log_softmax(own[keep] / 2.0, -1), torch.softmax(theirs[keep] / 2.0, -1)
    )
    hard = torch.nn.CrossEntropyLoss(ignore_index=-1)(own.reshape(-1, 19), torch.tensor(labels.reshape(-1)))
    ones = torch.ones(int(valid.sum()))
    cosine = torch.nn.CosineEmbeddingLoss()(hidden[keep], target[keep], ones)
    expected = 5.0 * 2.0**2 * soft + 2.0 * hard + 1.0 * cosine
    assert 7 * loss == pytest.approx(expected.item(), rel=1e-9)


def run_encoder(model, batch):
    """Logits and last hidden states, as tensors."""
    said = model.forward(batch.ids_BT, batch.context())["words"]
    return torch.tensor(said), torch.tensor(model.hidden(batch.ids_BT, batch.context()))


def test_hidden_states_and_attention_maps_against_torch():
    sizes = {"vocab_size": 19, "d_model": 8, "context": 6, "n_heads": 2}
    student, teacher = (
        Decoder.create(DecoderConfig.uniform(n_layers=n, **sizes), seed=n, dtype=np.float64) for n in (1, 2)
    )
    ids = sample_ids(student, 3, 6)
    batch = Batch(ids, np.roll(ids, -1, axis=1))
    method = Distil(TrainSettings(), hidden_weight=3.0, attention_weight=5.0)
    objective = Distillation(teacher, 1.0, 1.0, NextToken(), method.targets(student, teacher))
    loss, _ = objective.loss(student, batch, batch.context(), Tape(), Grads())
    hard, _ = NextToken().loss(student, batch, batch.context(), Tape(), Grads())
    hidden, maps = [], []
    for model, block in ((student, "blocks.0"), (teacher, "blocks.1")):
        tape = Tape([block, f"{block}.attention"])
        model.forward(ids, batch.context(), tape)
        hidden.append(torch.tensor(tape.seen[block]))
        q, k = (torch.tensor(array).transpose(1, 2) for array in tape.seen[f"{block}.attention"][:2])
        scores = q @ k.transpose(2, 3) / 2.0
        maps.append(torch.softmax(scores.masked_fill(torch.ones(6, 6).triu(1) > 0, -torch.inf), -1))
    rows = ids.size * 2
    kl = torch.nn.functional.kl_div(maps[0].clamp_min(1e-300).log(), maps[1], reduction="sum") / rows
    expected = hard + 3.0 * torch.nn.functional.mse_loss(*hidden) + 5.0 * kl
    assert loss == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("format_name", ["int2", "int3", "int4-32", "int8"])
def test_straight_through_and_learned_scale_gradients(format_name, rng):
    storage = format_named(format_name)
    low, high = storage.step_range
    n_inputs = 45
    w_OI = rng.standard_normal((7, n_inputs))
    scales = (storage.fit(w_OI)[0] * rng.uniform(0.3, 0.9, (7, 1))).astype(storage.scale_dtype).astype(np.float64)
    x_NI, dy_NO = rng.standard_normal((5, n_inputs)), rng.standard_normal((5, 7))
    ours = FakeQuantized(w_OI, storage, scales).grads(x_NI, dy_NO)

    w, s = torch.tensor(w_OI, requires_grad=True), torch.tensor(scales, requires_grad=True)
    sizes = [
        min(storage.group or n_inputs, n_inputs - start) for start in range(0, n_inputs, storage.group or n_inputs)
    ]
    damping = 1 / torch.sqrt(torch.tensor(sizes, dtype=torch.float64) * high)
    damped = s * damping + (s - s * damping).detach()  # its value is s, its gradient that of s times the damping
    spread = torch.repeat_interleave(damped, torch.tensor(sizes), dim=1)
    steps = torch.clamp(w / spread, low, high)
    rounded = steps + (torch.round(steps) - steps).detach()  # straight through
    y = torch.tensor(x_NI) @ (rounded * spread).T
    y.backward(torch.tensor(dy_NO))
    assert (w.grad == 0).any(), "some weights must be clipped"
    for name, gradient in (("", w.grad), ("scales", s.grad)):
        expected = gradient.numpy()
        assert np.linalg.norm(ours[name] - expected) <= 1e-5 * np.linalg.norm(expected), name


def test_gradient_under_a_mask(rng):
    w_OI, mask_OI = rng.standard_normal((6, 9)), rng.random((6, 9)) < 0.5
    x_NI, dy_NO = rng.standard_normal((4, 9)), rng.standard_normal((4, 6))
    w = torch.tensor(w_OI, requires_grad=True)
    (torch.tensor(x_NI) @ (w * torch.tensor(mask_OI)).T).backward(torch.tensor(dy_NO))
    ours = Masked.from_dense(w_OI, mask_OI).grads(x_NI, dy_NO)[""]
    assert np.abs(ours - w.grad.numpy()).max() <= 1e-12


def test_truncated_svd(rng):
    w_OI = rng.standard_normal((21, 34))
    u, s, v = torch.linalg.svd(torch.tensor(w_OI), full_matrices=False)
    expected = (u[:, :6] * s[:6] @ v[:6]).numpy()
    assert np.abs(factorised(w_OI, rank=6).dense() - expected).max() <= 1e-12
