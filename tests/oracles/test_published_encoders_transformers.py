"""Published encoders against transformers: hidden states, every head, losses, every gradient, padding, folders."""

from __future__ import annotations

import numpy as np
import pytest

import minislm
from minislm.errors import GenerationError
from minislm.inference.program import Program
from minislm.layers.base import Context, Grads, Tape
from minislm.models.fields import Fields
from minislm.ops.loss import cross_entropy, cross_entropy_backward

torch = pytest.importorskip("torch", reason="needs the oracle extra: pip install -e '.[oracle]'")
transformers = pytest.importorskip("transformers", reason="needs the oracle extra: pip install -e '.[oracle]'")
pytestmark = pytest.mark.oracle

from published import folder, made  # noqa: E402
from published_encoders import CASES, SIZES  # noqa: E402

LENGTH = 11
UNREAD = "cls.predictions.bias"  # their forward reads that of the decoder, which it is a copy of when tied


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.replace(",", "").replace(" ", "-"))
def pair(request, tmp_path_factory):
    """Their model, and ours out of its folder."""
    theirs = made(CASES[request.param])
    return theirs, minislm.load(folder(theirs, tmp_path_factory.mktemp("published")))


def some_input(theirs, n_rows=2, length=LENGTH, seed=0):
    """Token ids, and which text they are of."""
    rng = np.random.default_rng(seed)
    n_types = getattr(theirs.config, "type_vocab_size", 0)
    types = rng.integers(0, n_types, (n_rows, length)) if n_types else None
    return rng.integers(0, theirs.config.vocab_size, (n_rows, length)), types


def tensors(ids, types, **others):
    """What their forward takes."""
    return {
        "input_ids": torch.tensor(ids),
        **({} if types is None else {"token_type_ids": torch.tensor(types)}),
        **others,
    }


def said(theirs, ids, types, **others):
    """What their model says, by the names of our heads, with the last hidden state."""
    y = theirs(**tensors(ids, types, **others), output_hidden_states=True)
    found = {"hidden": y.hidden_states[-1]}
    kind = type(theirs).__name__
    if kind.endswith("ForPreTraining"):
        return found | {"words": y.prediction_logits, "next": y.seq_relationship_logits}
    if kind.endswith("ForQuestionAnswering"):
        return found | {"answer": torch.stack([y.start_logits, y.end_logits], 1)}
    endings = {"MaskedLM": "words", "NextSentencePrediction": "next"}
    endings |= {"SequenceClassification": "classes", "TokenClassification": "tags"}
    return found | {name: y.logits for ending, name in endings.items() if kind.endswith(ending)}


def relative(ours, expected):
    expected = expected.detach().numpy()
    assert ours.shape == expected.shape
    return np.abs(ours - expected).max() / np.abs(expected).max()


def test_hidden_states_and_every_head(pair):
    theirs, lm = pair
    ids, types = some_input(theirs)
    expected = said(theirs, ids, types)
    context = Context(types_BT=types)
    assert relative(lm.model.hidden(ids, context), expected.pop("hidden")) < 1e-4
    found = lm.model.forward(ids, context)
    assert set(found) == set(expected) == {head.name for head in lm.model.config.heads}
    for name, logits in expected.items():
        assert relative(found[name], logits) < 1e-4, name


def test_loss_and_every_gradient(pair):
    theirs, lm = pair
    ids, types = some_input(theirs, seed=1)
    rng = np.random.default_rng(2)
    theirs.zero_grad()
    expected = said(theirs, ids, types)
    tape, grads = Tape(), Grads()
    found = lm.model.forward(ids, Context(types_BT=types), tape)
    hidden = expected.pop("hidden")
    covector = rng.standard_normal(hidden.shape).astype(np.float32) / 100
    total = (hidden * torch.tensor(covector)).sum()
    grads.aside("hidden", covector)
    gradients = {}
    for name, logits in expected.items():
        targets = rng.integers(0, logits.shape[-1], logits.shape[:-1])
        theirs_loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), torch.tensor(targets).reshape(-1)
        )
        loss, saved = cross_entropy(found[name].reshape(-1, logits.shape[-1]), targets.reshape(-1))
        assert abs(float(loss) - theirs_loss.item()) < 1e-4 * abs(theirs_loss.item())
        gradients[name] = cross_entropy_backward(1.0, saved).reshape(logits.shape)
        total = total + theirs_loss
    total.backward()
    lm.model.backward(gradients, tape, grads)
    how = minislm.models.published(theirs.config.model_type)
    named = how.saved({name: grads.get(name, np.zeros_like(array)) for name, array in lm.model.arrays().items()})
    compared = 0
    scale = max(float(p.grad.abs().max()) for p in theirs.parameters() if p.grad is not None)
    for name, parameter in theirs.named_parameters():
        ours = next((named[key] for key in (name, f"{how.prefix}{name}") if key in named), None)
        if parameter.grad is None:
            continue
        compared += 1
        if ours is None and name == UNREAD:
            ours = named["cls.predictions.decoder.bias"]
        # a bias that shifts every score of a softmax alike (of a key, of a span) has a gradient of mere rounding
        error = np.abs(ours - parameter.grad.numpy()).max()
        assert error < 1e-3 * max(float(parameter.grad.abs().max()), 1e-3 * scale), name
    assert compared > 30


def test_program_equals_theirs(pair):
    theirs, lm = pair
    ids, types = some_input(theirs, 2, 9, seed=3)
    counts = np.array([9, 6])
    real = np.arange(9) < counts[:, None]
    found = Program.of(lm.model).run_all(ids[real], counts, None if types is None else types[real])
    rows = [
        said(theirs, ids[b : b + 1, :n], None if types is None else types[b : b + 1, :n]) for b, n in enumerate(counts)
    ]
    for name in found:
        parts = [row[name].detach() for row in rows]
        parts = [part.transpose(1, 2) if name == "answer" else part for part in parts]
        whole = torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])
        assert relative(found[name], whole) < 1e-4, name


def test_padding_on_either_side_changes_nothing(pair):
    theirs, lm = pair
    ids, types = some_input(theirs, 2, 9, seed=4)
    lengths = np.array([9, 6])
    mask = np.arange(9) < lengths[:, None]
    ours = lm.model.hidden(ids, Context(lengths_B=lengths, types_BT=types))
    if theirs.config.model_type == "mobilebert":  # to which the vector of padding is a neighbour: not padded, then
        alone = said(theirs, ids[1:, :6], types[1:, :6])["hidden"]
        assert relative(ours[1:, :6], alone) < 1e-4
        return
    right = said(theirs, ids, types, attention_mask=torch.tensor(mask).long())["hidden"]
    assert relative(ours[mask], right[torch.tensor(mask)]) < 1e-4
    order = np.array([np.arange(9), np.roll(np.arange(9), 3)])  # the padding of the second row goes to its front
    left = np.take_along_axis(mask, order, 1)
    moved = [None if x is None else np.take_along_axis(x, order, 1) for x in (ids, types)]
    positions = torch.tensor((left.cumsum(1) - 1).clip(min=0))
    expected = said(theirs, *moved, attention_mask=torch.tensor(left).long(), position_ids=positions)["hidden"]
    assert relative(ours[mask], expected[torch.tensor(left)]) < 1e-4


def test_positions_beyond_the_context_are_refused(pair):
    _, lm = pair
    with pytest.raises(GenerationError) as caught:
        lm.logits(np.zeros((1, lm.model.config.context + 1), np.int64))
    assert caught.value.code == "context_length_exceeded"


def test_saved_folder_is_theirs_again(pair, tmp_path):
    theirs, lm = pair
    minislm.save(lm, tmp_path / "again")
    back, notes = type(theirs).from_pretrained(
        tmp_path / "again", attn_implementation="eager", output_loading_info=True
    )
    assert notes.pop("missing_keys") <= ({UNREAD} if not lm.model.config.tied else set())
    assert not any(notes.values()), notes
    for (name, parameter), (_, other) in zip(theirs.named_parameters(), back.eval().named_parameters(), strict=True):
        if lm.model.config.tied or name != UNREAD:
            np.testing.assert_array_equal(parameter.detach().numpy(), other.detach().numpy(), err_msg=name)
    ids, types = some_input(theirs)
    expected = said(theirs, ids, types)
    for name, y in said(back, ids, types).items():
        assert torch.equal(y, expected[name])
    assert minislm.load(tmp_path / "again").model.config == lm.model.config


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_shards(pair, tmp_path, dtype):
    theirs, _ = pair
    half = type(theirs)(theirs.config).eval()
    half.load_state_dict(theirs.state_dict())
    half = half.to(getattr(torch, dtype))
    lm = minislm.load(folder(half, tmp_path / "half", max_shard_size="20KB"))
    assert {weight.array.dtype.name for weight in lm.model.weights().values()} == {dtype}
    ids, types = some_input(theirs, seed=5)
    found = lm.model.forward(ids, Context(types_BT=types))
    expected = said(half.float(), ids, types)
    del expected["hidden"]
    for name, logits in expected.items():
        assert relative(found[name], logits) < 1e-4, name


@pytest.mark.parametrize("name", SIZES)
def test_published_sizes(name):
    case, millions = SIZES[name]
    config = getattr(transformers, case.config)(**case.values)
    with torch.device("meta"):  # shapes without numbers
        theirs = getattr(transformers, case.model)(config)
    how = minislm.models.published(config.model_type)
    tensors = {name: np.broadcast_to(np.float32(0), p.shape) for name, p in theirs.named_parameters()}
    ours = how.read(Fields(config.to_dict()), tensors)
    model_class, _ = minislm.models.model_class(how.family)
    found = how.loaded(tensors, model_class.shapes(ours), "config.json")
    sizes = {path: array.size for path, array in found.items() if not path.startswith(("heads.", "pooler."))}
    pooler = 0 if "distil" in name or "mobile" in name else ours.d_model * (ours.d_model + 1)
    assert abs((sum(sizes.values()) + pooler) / 1e6 - millions) < 0.051
