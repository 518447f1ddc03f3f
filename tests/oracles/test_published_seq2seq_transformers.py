"""Published encoder-decoders against transformers: logits, states, loss, every gradient, continuations, padding."""

from __future__ import annotations

import json

import numpy as np
import pytest

import minislm
from minislm.errors import GenerationError
from minislm.inference.cache import KVCache
from minislm.inference.program import Program
from minislm.layers.base import Context, Grads, Tape
from minislm.layers.relative_bias import RelativeBias
from minislm.models.fields import Fields
from minislm.models.transformer import Transformer
from minislm.ops.loss import cross_entropy, cross_entropy_backward
from minislm.weights.dense import Dense

torch = pytest.importorskip("torch", reason="needs the oracle extra: pip install -e '.[oracle]'")
transformers = pytest.importorskip("transformers", reason="needs the oracle extra: pip install -e '.[oracle]'")
pytestmark = pytest.mark.oracle

from published import folder, made  # noqa: E402
from published_seq2seq import CASES, SIZES  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

MARGIN = 1e-3  # between the two likeliest tokens, or texts, of a continuation that is compared
SEARCHES = {
    "greedy": {},
    "four beams": {"num_beams": 4, "length_penalty": 0.6},
    "six beams, early": {"num_beams": 6, "early_stopping": True, "renormalize_logits": True},
    "long": {"num_beams": 4, "length_penalty": 1.3, "min_length": 6, "no_repeat_ngram_size": 2},
    "never early": {"num_beams": 3, "early_stopping": "never", "forced_bos_token_id": 7},
}


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.replace(", ", "-").replace(" ", "-"))
def pair(request, tmp_path_factory):
    """Their model, and ours out of its folder."""
    theirs = made(CASES[request.param])
    return theirs, minislm.load(folder(theirs, tmp_path_factory.mktemp("published")))


def some_ids(n_rows=2, length=11, seed=0):
    return np.random.default_rng(seed).integers(3, 99, (n_rows, length))


def relative(ours, expected):
    return np.abs(ours - expected).max() / np.abs(expected).max()


def run(theirs, source, target, **more):
    with torch.no_grad():
        return theirs(torch.tensor(source), decoder_input_ids=torch.tensor(target), output_hidden_states=True, **more)


def test_logits_and_hidden_states(pair):
    theirs, lm = pair
    source, target = some_ids(length=23), some_ids(length=19, seed=1)
    expected = run(theirs, source, target)
    assert relative(lm.logits(source, decoder_ids=target), expected.logits.numpy()) < 1e-4
    assert relative(lm.encode(source), expected.encoder_last_hidden_state.numpy()) < 1e-4
    hidden = lm.model.hidden(target, Context(source_BS=source))
    assert relative(hidden, expected.decoder_hidden_states[-1].numpy()) < 1e-4


def test_loss_and_every_gradient(pair):
    theirs, lm = pair
    source, target = some_ids(length=17, seed=2), some_ids(length=15, seed=3)
    theirs.zero_grad()
    found = theirs(torch.tensor(source), decoder_input_ids=torch.tensor(target[:, :-1]))
    expected = torch.nn.functional.cross_entropy(found.logits.flatten(0, 1), torch.tensor(target[:, 1:]).flatten())
    expected.backward()
    tape, grads = Tape(), Grads()
    logits = lm.model.forward(target[:, :-1], Context(source_BS=source), tape)
    loss, saved = cross_entropy(logits.reshape(-1, logits.shape[-1]), target[:, 1:].reshape(-1))
    lm.model.backward(cross_entropy_backward(1.0, saved).reshape(logits.shape), tape, grads)
    assert not tape
    assert not grads.side
    assert abs(float(loss) - expected.item()) < 1e-4 * abs(expected.item())
    how = minislm.models.published(theirs.config.model_type)
    named = how.saved({name: grads[name] for name in lm.model.arrays()})
    compared = 0
    for name, parameter in theirs.named_parameters():
        if parameter.grad is not None and parameter.grad.abs().max() > 1e-6:
            assert relative(named[name], parameter.grad.numpy()) < 1e-3, name
            compared += 1
    assert compared >= len(named) - 8  # biases of keys have no gradient but rounding, and theirs of the logits has none


def test_padding_of_sources_changes_nothing(pair):
    theirs, lm = pair
    source, target, lengths = some_ids(2, 13, seed=4), some_ids(2, 9, seed=5), np.array([13, 8])
    mask = np.arange(13) < lengths[:, None]
    expected = run(theirs, source, target, attention_mask=torch.tensor(mask).long()).logits.numpy()
    assert relative(lm.logits(source, mask, decoder_ids=target), expected) < 1e-4
    alone = lm.logits(source[1:, :8], decoder_ids=target[1:])
    assert relative(alone, expected[1:]) < 1e-4


def test_cached_equals_whole_at_every_split(pair):
    theirs, lm = pair
    source, target = some_ids(1, 21, seed=6), some_ids(1, 14, seed=7)
    expected = run(theirs, source, target).logits.numpy()[0]
    program, reader = Program.of(lm.model), Program.of_source(lm.model)
    for split in range(1, 14):
        cache = KVCache.create(lm.model.config.layers, 1, 16, source_capacity=21)
        slots = np.array([cache.claim()])
        reader.run_all(source[0], np.array([21]), cache=cache, slots_B=slots)
        first = program.run(target[0, :split], slots, np.array([split]), cache, every=True)
        second = program.run(target[0, split:], slots, np.array([14 - split]), cache, every=True)
        assert relative(np.concatenate([first, second]), expected) < 1e-4


def generated(theirs, source, n_beams):
    """What their library writes: tokens after the first, up to an end; nothing where the choice was not clear."""
    with torch.no_grad():
        found = theirs.generate(
            torch.tensor(source), attention_mask=torch.ones_like(torch.tensor(source)), output_scores=True,
            return_dict_in_generate=True, num_return_sequences=min(n_beams, 2),
            use_cache=False,  # theirs fails where encoder and decoder have different numbers of blocks
        )  # fmt: skip
    ids = found.sequences[0, 1:].tolist()
    eos = theirs.generation_config.eos_token_id
    if n_beams > 1:
        margin = found.sequences_scores[0] - found.sequences_scores[1]
    else:
        best = torch.stack(found.scores).topk(2).values
        margin = (best[..., 0] - best[..., 1]).min()
    ids = ids[: ids.index(eos) + 1] if eos in ids else ids
    return ids if margin > MARGIN else None


@pytest.fixture(scope="module")
def written(pair, tmp_path_factory):
    """For each search a folder that asks for it, and what their library makes of some sources."""
    theirs, kept, found = pair[0], pair[0].generation_config, {}
    for name, search in SEARCHES.items():
        values = {**kept.to_diff_dict(), "max_length": 10, "do_sample": False, **search}
        if theirs.config.model_type == "marian":
            values["bad_words_ids"] = [[theirs.config.pad_token_id]]
        theirs.generation_config = transformers.GenerationConfig(**values)
        path, clear = folder(theirs, tmp_path_factory.mktemp("search")), []
        for seed in range(24):
            if len(clear) == 3:
                break
            source = some_ids(1, 7, seed=40 + seed)
            ids = generated(theirs, source, values.get("num_beams", 1))
            if ids is not None:
                clear.append((source[0].tolist(), ids))
        found[name] = path, clear
    theirs.generation_config = kept
    return found


@pytest.mark.parametrize("search", SEARCHES)
def test_continuations_as_a_folder_says(written, search, tmp_path):
    path, clear = written[search]
    assert len(clear) == 3
    lm = minislm.load(path)
    assert [lm.generate(source, temperature=0.0).ids for source, _ in clear] == [ids for _, ids in clear]
    minislm.save(lm, tmp_path / "again")
    assert minislm.load(tmp_path / "again").settings == lm.settings


def test_positions_beyond_the_context_are_refused(pair):
    _, lm = pair
    with pytest.raises(GenerationError) as caught:
        lm.encode(np.zeros((1, lm.model.config.context + 1), np.int64))
    assert caught.value.code == "context_length_exceeded"


def test_saved_folder_is_theirs_again(pair, tmp_path):
    theirs, lm = pair
    minislm.save(lm, tmp_path / "again")
    back = type(theirs).from_pretrained(tmp_path / "again", attn_implementation="eager").eval()
    for (name, tensor), (_, other) in zip(theirs.state_dict().items(), back.state_dict().items(), strict=True):
        np.testing.assert_array_equal(tensor.numpy(), other.numpy(), err_msg=name)
    source, target = some_ids(), some_ids(seed=1)
    assert torch.equal(run(theirs, source, target).logits, run(back, source, target).logits)
    assert minislm.load(tmp_path / "again").model.config == lm.model.config


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_shards(pair, tmp_path, dtype):
    theirs, _ = pair
    half = type(theirs)(theirs.config).eval()
    half.load_state_dict(theirs.state_dict())
    half = half.to(getattr(torch, dtype))
    sines = {name: table for name, table in theirs.named_parameters() if not table.requires_grad}
    lm = minislm.load(folder(half, tmp_path / "half", max_shard_size="20KB"))
    assert {weight.array.dtype.name for weight in lm.model.weights().values()} == {dtype}
    source, target = some_ids(seed=8), some_ids(seed=9)
    half.float().load_state_dict(sines, strict=False)  # which are in no file
    assert relative(lm.logits(source, decoder_ids=target), run(half, source, target).logits.numpy()) < 1e-4


def test_a_head_of_its_own(tmp_path):
    theirs = made(CASES["t5 1.1"])
    theirs.lm_head.weight = torch.nn.Parameter(torch.randn(101, 20))
    path = folder(theirs, tmp_path / "untied")
    tensors = {name: tensor.clone() for name, tensor in theirs.state_dict().items() if "embed_tokens" not in name}
    save_file(tensors, path / "model.safetensors")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    lm = minislm.load(path)
    assert not lm.model.config.tied
    source, target = some_ids(), some_ids(seed=1)
    assert relative(lm.logits(source, decoder_ids=target), run(theirs, source, target).logits.numpy()) < 1e-4
    minislm.save(lm, tmp_path / "again")
    again = minislm.load(tmp_path / "again")
    assert again.model.config == lm.model.config
    np.testing.assert_array_equal(again.model.head.weight.array, theirs.lm_head.weight.detach().numpy())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("n_buckets", "max_distance"), [(32, 128), (32, 40), (8, 11), (6, 100), (4, 9), (64, 1000)])
def test_every_distance_has_their_bucket(n_buckets, max_distance, causal):
    bias = RelativeBias("bias", Dense(np.zeros((n_buckets, 2), np.float32)), max_distance, causal)
    module = transformers.models.t5.modeling_t5.T5Attention
    expected = module._relative_position_bucket(
        torch.tensor(bias.distances()), bidirectional=not causal, num_buckets=n_buckets, max_distance=max_distance
    )
    np.testing.assert_array_equal(bias.buckets(bias.distances()), expected.numpy())


@pytest.mark.parametrize("name", SIZES)
def test_names_and_shapes_of_published_sizes(name):
    case, n_parameters = SIZES[name]
    config = getattr(transformers, case.config)(**case.values)
    with torch.device("meta"):
        theirs = getattr(transformers, case.model)(config)
    expected = {name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()}
    how = minislm.models.published(config.model_type)
    shapes = Transformer.shapes(how.read(Fields(config.to_dict()), expected.keys() - {"lm_head.weight"}))
    found = how.saved({path: np.broadcast_to(np.float32(0), shape) for path, shape in shapes.items()})
    assert {path: array.shape for path, array in found.items()}.items() <= expected.items()
    left = [path for path in expected.keys() - found.keys() if not path.endswith(how.passed_over)]
    assert all(path.endswith(("embed_tokens.weight", "lm_head.weight")) for path in left)  # copies
    if n_parameters is not None:
        assert sum(array.size for array in found.values()) == n_parameters
