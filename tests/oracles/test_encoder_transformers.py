"""The encoder against Hugging Face's BERT with the same random parameters: results, losses and every gradient."""

from __future__ import annotations

import numpy as np
import pytest

from minislm.config import Head
from minislm.layers.base import Context, Grads, Tape
from minislm.layers.heads import IMPOSSIBLE
from minislm.models.encoder import Encoder, EncoderConfig
from minislm.ops.loss import cross_entropy, cross_entropy_backward
from minislm.testing.batches import sample_ids

torch = pytest.importorskip("torch", reason="needs the oracle extra: pip install -e '.[oracle]'")
transformers = pytest.importorskip("transformers", reason="needs the oracle extra: pip install -e '.[oracle]'")
pytestmark = pytest.mark.oracle

SIZES = {"vocab_size": 23, "d_model": 12, "context": 9, "n_layers": 2, "n_heads": 3, "d_ff": 21}
LABELS = ("a", "b", "c")
LENGTHS = np.array([7, 4])
# Our names of modules, and theirs.
BODY = {
    "embedding": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "types": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "pooler": "pooler.dense",
}
BLOCK = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.output": "attention.output.dense",
    "norm_1": "attention.output.LayerNorm",
    "mlp.up": "intermediate.dense",
    "mlp.down": "output.dense",
    "norm_2": "output.LayerNorm",
}
HEADS = {
    "masked": (
        "BertForMaskedLM",
        {
            "transform": "cls.predictions.transform.dense",
            "norm": "cls.predictions.transform.LayerNorm",
            "": "cls.predictions",
        },
    ),
    "sequence": ("BertForSequenceClassification", {"output": "classifier"}),
    "token": ("BertForTokenClassification", {"output": "classifier"}),
    "span": ("BertForQuestionAnswering", {"output": "qa_outputs"}),
    "next sentence": ("BertForNextSentencePrediction", {"output": "cls.seq_relationship"}),
}


def translated(name, head_names):
    """Their name of one of our arrays."""
    module, _, kind = name.rpartition(".")
    if module.startswith("heads."):
        inner = module.removeprefix("heads.head").removeprefix(".")
        return f"{head_names[inner]}.{kind}"
    if module.startswith("blocks."):
        _, i, inner = module.split(".", 2)
        return f"bert.encoder.layer.{i}.{BLOCK[inner]}.{kind}"
    return f"bert.{BODY[module]}.{kind}"


def pair(kind):
    """Our encoder and their model, with the same parameters."""
    ours_kind = "sequence" if kind == "next sentence" else kind
    labels = {"sequence": LABELS, "token": LABELS, "next sentence": LABELS[:2]}.get(kind, ())
    config = EncoderConfig.uniform(**SIZES, pooler=ours_kind == "sequence", heads=(Head("head", ours_kind, labels),))
    ours = Encoder.create(config, seed=1, dtype=np.float64)
    rng = np.random.default_rng(2)
    ours = ours.with_arrays({k: v + 0.3 * rng.standard_normal(v.shape) for k, v in ours.arrays().items()})
    class_name, head_names = HEADS[kind]
    theirs = getattr(transformers, class_name)(
        transformers.BertConfig(
            vocab_size=23,
            hidden_size=12,
            max_position_embeddings=9,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=21,
            num_labels=len(labels) or 2,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=None,  # or id 0 would have no gradient
        )
    ).double()
    parameters = dict(theirs.named_parameters())
    names = {name: translated(name, head_names) for name in ours.parameters()}
    assert set(names.values()) == set(parameters)
    with torch.no_grad():
        for name, array in ours.parameters().items():
            parameters[names[name]].copy_(torch.tensor(array))
    return ours, theirs.eval(), {name: parameters[other] for name, other in names.items()}


def targets_of(kind, rng):
    """Random targets, ours and as their keyword arguments; padding and a part of the rest do not count."""
    real = np.arange(7) < LENGTHS[:, None]
    if kind in ("masked", "token"):
        targets = np.where(real & (rng.random((2, 7)) < 0.7), rng.integers(0, 3, (2, 7)), -100)
        return targets, {"labels": torch.tensor(targets)}
    if kind == "span":
        return rng.integers(0, 4, (2, 2)), {}
    targets = rng.integers(0, 2, 2)
    return targets, {"labels": torch.tensor(targets)}


@pytest.mark.parametrize("kind", HEADS)
def test_results_loss_and_every_gradient_equal_bert(kind, rng):
    ours, theirs, parameters = pair(kind)
    ids, types = sample_ids(ours, 2, 7), rng.integers(0, 2, (2, 7))
    targets, labels = targets_of(kind, rng)
    context, tape, grads = Context(lengths_B=LENGTHS, types_BT=types), Tape(["hidden", "blocks.0"]), Grads()
    logits = ours.forward(ids, context, tape)["head"]
    loss, saved = cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))
    ours.backward({"head": cross_entropy_backward(1.0, saved).reshape(logits.shape)}, tape, grads)

    mask = torch.tensor(np.arange(7) < LENGTHS[:, None])
    expected = theirs(
        torch.tensor(ids),
        attention_mask=mask.long(),
        token_type_ids=torch.tensor(types),
        output_hidden_states=True,
        **labels,
    )
    if kind == "span":  # theirs judges padding too: only where it cannot win are both losses alike
        assert (logits[~np.broadcast_to(mask.numpy()[:, None], logits.shape)] == IMPOSSIBLE).all()
        scores = torch.stack([expected.start_logits, expected.end_logits], 1)
        scores = scores.masked_fill(~mask[:, None], IMPOSSIBLE)
        expected_loss = torch.nn.functional.cross_entropy(scores.reshape(4, 7), torch.tensor(targets).reshape(-1))
    else:
        scores, expected_loss = expected.logits, expected.loss
    expected_loss.backward()

    real = mask.numpy()
    for path, index in (("blocks.0", 1), ("hidden", 2)):
        assert relative(tape.seen[path][real], expected.hidden_states[index][mask]) <= 1e-9
    assert relative(logits, scores) <= 1e-9
    assert abs(loss - expected_loss.item()) <= 1e-9 * expected_loss.item()
    scale = max(float(p.grad.norm()) for p in parameters.values() if p.grad is not None)
    for name, parameter in parameters.items():
        # A key's bias shifts all scores of a query alike: its gradient is zero but for rounding, hence the floor.
        error = np.linalg.norm(grads[name] - parameter.grad.numpy())
        assert error <= 1e-8 * max(float(parameter.grad.norm()), 1e-6 * scale), f"{name} differs by {error:.3g}"


def relative(got, expected):
    expected = expected.detach().numpy()
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)
