"""Published decoders against transformers: logits, hidden states, loss, every gradient, continuations, padding."""

from __future__ import annotations

import numpy as np
import pytest
import tokenizers

import minislm
from minislm.errors import DataError, GenerationError
from minislm.inference.cache import KVCache
from minislm.inference.program import Program
from minislm.layers.base import PLAIN, Context, Grads, Tape
from minislm.ops.loss import cross_entropy, cross_entropy_backward

torch = pytest.importorskip("torch", reason="needs the oracle extra: pip install -e '.[oracle]'")
transformers = pytest.importorskip("transformers", reason="needs the oracle extra: pip install -e '.[oracle]'")
pytestmark = pytest.mark.oracle

from published import folder, made  # noqa: E402
from published_decoders import CASES  # noqa: E402

MARGIN = 1e-3  # between the two likeliest tokens of a continuation that is compared


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.replace(" ", "-"))
def pair(request, tmp_path_factory):
    """Their model, and ours out of its folder."""
    theirs = made(CASES[request.param])
    return theirs, minislm.load(folder(theirs, tmp_path_factory.mktemp("published")))


def some_ids(theirs, n_rows=2, length=11, seed=0):
    return np.random.default_rng(seed).integers(
        3, theirs.config.vocab_size, (n_rows, length)
    )  # padding has no gradient


def relative(ours, expected):
    return np.abs(ours - expected).max() / np.abs(expected).max()


def test_logits_and_hidden_states(pair):
    theirs, lm = pair
    ids = some_ids(theirs)
    with torch.no_grad():
        expected = theirs(torch.tensor(ids), output_hidden_states=True)
    assert relative(lm.logits(ids), expected.logits.numpy()) < 1e-4
    assert relative(lm.encode(ids), expected.hidden_states[-1].numpy()) < 1e-4


def test_loss_and_every_gradient(pair):
    theirs, lm = pair
    ids = some_ids(theirs, seed=1)
    theirs.zero_grad()
    expected = theirs(torch.tensor(ids), labels=torch.tensor(ids)).loss
    expected.backward()
    tape, grads = Tape(), Grads()
    logits = lm.model.forward(ids, PLAIN, tape)
    loss, saved = cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1))
    dlogits = np.zeros_like(logits)
    dlogits[:, :-1] = cross_entropy_backward(1.0, saved).reshape(logits[:, :-1].shape)
    lm.model.backward(dlogits, tape, grads)
    assert abs(float(loss) - expected.item()) < 1e-4 * abs(expected.item())
    how = minislm.models.published(theirs.config.model_type)
    named = how.saved({name: grads[name] for name in lm.model.arrays()})
    for name, parameter in theirs.named_parameters():
        if parameter.grad is not None and parameter.grad.abs().max() > 1e-6:
            assert relative(named[name], parameter.grad.numpy()) < 1e-3, name


def test_cached_equals_whole_at_every_split(pair):
    theirs, lm = pair
    ids = some_ids(theirs, 1, 12, seed=2)
    with torch.no_grad():
        expected = theirs(torch.tensor(ids)).logits.numpy()[0]
    program = Program.of(lm.model)
    for split in range(1, 12):
        cache = KVCache.create(lm.model.config.layers, 1, 16)
        slots = np.array([cache.claim()])
        first = program.run(ids[0, :split], slots, np.array([split]), cache, every=True)
        second = program.run(ids[0, split:], slots, np.array([12 - split]), cache, every=True)
        assert relative(np.concatenate([first, second]), expected) < 1e-4


def test_greedy_continuation(pair):
    theirs, lm = pair
    compared = 0
    for seed in range(8):
        ids = some_ids(theirs, 1, 5, seed=10 + seed)
        with torch.no_grad():
            expected = theirs.generate(
                torch.tensor(ids), attention_mask=torch.ones_like(torch.tensor(ids)), do_sample=False,
                max_new_tokens=16, eos_token_id=None, output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
        best = torch.stack(expected.logits).topk(2).values
        if (best[..., 0] - best[..., 1]).min() > MARGIN:
            found = lm.generate(ids[0].tolist(), max_new_tokens=16, temperature=0.0, ignore_eos=True)
            assert list(found.ids) == expected.sequences[0, 5:].tolist()
            compared += 1
    assert compared >= 2


def test_beams(pair):
    theirs, lm = pair
    compared = 0
    for seed in range(6):
        ids = some_ids(theirs, 1, 4, seed=30 + seed)
        with torch.no_grad():
            expected = theirs.generate(
                torch.tensor(ids), attention_mask=torch.ones_like(torch.tensor(ids)), do_sample=False, num_beams=3,
                max_new_tokens=8, eos_token_id=None, num_return_sequences=2, output_scores=True,
                return_dict_in_generate=True,
            )  # fmt: skip
        if expected.sequences_scores[0] - expected.sequences_scores[1] > MARGIN:
            found = lm.generate(ids[0].tolist(), max_new_tokens=8, temperature=0.0, n_beams=3, ignore_eos=True)
            assert list(found.ids) == expected.sequences[0, 4:].tolist()
            compared += 1
    assert compared >= 2


def test_padding_on_either_side_changes_nothing(pair):
    theirs, lm = pair
    ids = some_ids(theirs, 2, 9, seed=3)
    lengths = np.array([9, 6])
    left = ids.copy()
    left[1, 3:], left[1, :3] = ids[1, :6], 2
    mask = torch.tensor(np.arange(9) >= (9 - lengths)[:, None]).long()
    with torch.no_grad():
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        expected = theirs(torch.tensor(left), attention_mask=mask, position_ids=positions).logits.numpy()
    ours = lm.model.forward(ids, Context(lengths_B=lengths))
    assert relative(ours[1, :6], expected[1, 3:]) < 1e-4
    assert relative(ours[0], expected[0]) < 1e-4


def test_positions_beyond_the_context_are_refused(pair):
    _, lm = pair
    with pytest.raises(GenerationError) as caught:
        lm.logits(np.zeros((1, lm.model.config.context + 1), np.int64))
    assert caught.value.code == "context_length_exceeded"


def test_saved_folder_is_theirs_again(pair, tmp_path):
    theirs, lm = pair
    minislm.save(lm, tmp_path / "again")
    back = type(theirs).from_pretrained(tmp_path / "again", attn_implementation="eager").eval()
    for (name, parameter), (_, other) in zip(theirs.named_parameters(), back.named_parameters(), strict=True):
        np.testing.assert_array_equal(parameter.detach().numpy(), other.detach().numpy(), err_msg=name)
    ids = torch.tensor(some_ids(theirs))
    with torch.no_grad():
        assert torch.equal(theirs(ids).logits, back(ids).logits)
    again = minislm.load(tmp_path / "again")
    assert again.model.config == lm.model.config


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_shards(pair, tmp_path, dtype):
    theirs, _ = pair
    half = type(theirs)(theirs.config).eval()
    half.load_state_dict(theirs.state_dict())
    half = half.to(getattr(torch, dtype))
    lm = minislm.load(folder(half, tmp_path / "half", max_shard_size="20KB"))
    assert {weight.array.dtype.name for weight in lm.model.weights().values()} == {dtype}
    ids = some_ids(theirs, seed=4)
    whole = type(theirs)(theirs.config).eval()  # not half.float(), whose frequencies were rounded too
    whole.load_state_dict(half.state_dict())
    with torch.no_grad():
        expected = whole(torch.tensor(ids)).logits.numpy()
    assert relative(lm.logits(ids), expected) < 1e-4


def test_a_tokenizer_has_one_token_more_than_the_model_has_rows_as_gemma_3s_does(tmp_path):
    theirs = made(CASES["gemma3"])
    path, n_rows = folder(theirs, tmp_path), theirs.config.vocab_size
    inner = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    inner.add_special_tokens(["<image_soft_token>"])
    inner.save(str(path / "tokenizer.json"))
    library, lm = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json")), minislm.load(path)
    text = "".join(lm.tokenizer.tokens[number] for number in range(9, 20))
    ids = lm.tokenizer.encode(text)
    assert (len(library), library(text)["input_ids"], lm.tokenizer.vocab_size) == (n_rows + 1, ids, n_rows + 1)
    with torch.no_grad():
        expected = theirs.generate(torch.tensor([ids]), max_new_tokens=4, do_sample=False, eos_token_id=None)[
            0
        ].tolist()
    assert lm.generate(text, max_new_tokens=4, temperature=0.0, ignore_eos=True).ids == expected[len(ids) :]
    with pytest.raises(DataError, match="no row for the token '<image_soft_token>', id"):
        lm.generate([*ids, n_rows])
