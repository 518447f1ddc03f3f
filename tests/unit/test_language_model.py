"""LanguageModel: what is saved comes back bit by bit, cheaply, and a folder that contradicts itself is refused."""

import dataclasses
import json
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

import minislm
from minislm import models
from minislm.compression.quantize import Quantize
from minislm.config import Head
from minislm.errors import DataError, GenerationError, MinislmError, ModelFileError, UnsupportedError, UsageError
from minislm.evaluation.memory import peak_memory
from minislm.evaluation.speed import measure_speed
from minislm.files import safetensors
from minislm.inference.settings import GenerationSettings
from minislm.language_model import LanguageModel, load, save
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.models.encoder import EncoderConfig
from minislm.models.transformer import TransformerConfig
from minislm.testing.samples import sample_weights
from minislm.text.tokenizer import Tokenizer
from minislm.weights import WEIGHTS

SIZES = DecoderConfig.uniform(vocab_size=260, d_model=32, context=24, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=40)
LAYER = {"n_heads": 4, "n_kv_heads": 2, "d_head": 8, "d_ff": 40}
SMALL = {"d_model": 16, "context": 24, "n_layers": 1, "n_heads": 2}
ENCODER = EncoderConfig.uniform(vocab_size=261, **SMALL, heads=(Head("label", "sequence", ("a", "b")),))
TRANSFORMER = TransformerConfig.uniform(vocab_size=257, **SMALL)
CHOICES = [
    {},
    {"positions": "rotary", "norm": "rms", "mlp": "gated", "activation": "silu", "biases": (), "tied": False},
]


@pytest.fixture(scope="module")
def plain_bytes():
    return Tokenizer.train([], kind="bytes")


@pytest.fixture
def lm(plain_bytes):
    return LanguageModel(Decoder.create(SIZES, seed=3), plain_bytes)


@pytest.fixture
def folder(tmp_path, lm):
    save(lm, tmp_path / "model")
    return tmp_path / "model"


def same(a, b):
    """Whether two models are equal: config, specs, and every stored bit."""
    mine, theirs = a.model.arrays(), b.model.arrays()
    return (
        a.model.config == b.model.config
        and a.model.specs() == b.model.specs()
        and mine.keys() == theirs.keys()
        and all(
            mine[name].dtype == theirs[name].dtype
            and mine[name].shape == theirs[name].shape
            and np.ascontiguousarray(mine[name]).tobytes() == np.ascontiguousarray(theirs[name]).tobytes()
            for name in mine
        )
    )


@pytest.mark.parametrize("choices", CHOICES, ids=["gpt", "llama"])
def test_save_then_load(tmp_path, plain_bytes, choices):
    settings = GenerationSettings(max_new_tokens=7, temperature=0.5, top_k=9, stop=["\n", "."], ignore_eos=True, seed=5)
    lm = LanguageModel(Decoder.create(dataclasses.replace(SIZES, **choices)), plain_bytes, settings, ({"steps": []},))
    minislm.save(lm, tmp_path / "model")
    back = minislm.load(tmp_path / "model")
    assert same(back, lm)
    assert back.settings == settings
    assert back.history == ({"steps": []},)
    assert back.tokenizer.tokens == lm.tokenizer.tokens
    np.testing.assert_array_equal(back.logits([1, 2, 3]), lm.logits([1, 2, 3]))
    assert back.generate("for").ids == lm.generate("for").ids


@pytest.mark.parametrize("storage", WEIGHTS)
def test_every_storage_comes_back_bit_by_bit(tmp_path, lm, rng, storage):
    path, shape = "blocks.1.mlp.up.weight", (40, 32)
    if storage in ("diagonal", "sparse"):  # which is square, or has blocks of 16 outputs
        path, shape = "blocks.1.attention.query.weight", (32, 32)
    for weight in sample_weights(storage, rng, *shape, np.float32):
        changed = dataclasses.replace(lm, model=lm.model.replaced({path: weight}))
        save(changed, tmp_path / "model")
        back = load(tmp_path / "model")
        assert same(back, changed)
        assert type(back.model.weights()[path]) is type(weight)


def another(config):
    """A model of another family."""
    return models.model_class(config.type)[0].create(config, seed=4)


@pytest.mark.parametrize("config", [ENCODER, TRANSFORMER], ids=["encoder", "transformer"])
def test_every_family_comes_back(tmp_path, config):
    lm = LanguageModel(another(config), Tokenizer.train([], kind="bytes", encoder=config is ENCODER))
    save(lm, tmp_path / "model")
    back = load(tmp_path / "model")
    assert type(back.model) is type(lm.model)
    assert same(back, lm)
    if config is ENCODER:
        assert back.classify(["play", "a longer text"]) == lm.classify(["play", "a longer text"])
        np.testing.assert_array_equal(back.embed(["play"]), lm.embed(["play"]))
    else:
        assert back.translate(["ab"], max_new_tokens=4)[0].ids == lm.translate(["ab"], max_new_tokens=4)[0].ids


HEAD = {"name": "label", "kind": "sequence", "labels": ["a", "b"]}
SIDES = {
    "a label more": (ENCODER, {"heads": [{**HEAD, "labels": ["a", "b", "c"]}]}),
    "a head less": (ENCODER, {"heads": []}),
    "a head more": (ENCODER, {"heads": [HEAD, {"name": "more", "kind": "span", "labels": []}]}),
    "another kind": (ENCODER, {"heads": [{**HEAD, "kind": "masked", "labels": []}]}),
    "an unknown kind": (ENCODER, {"heads": [{**HEAD, "kind": "clas"}]}),
    "a name with a dot": (ENCODER, {"heads": [{**HEAD, "name": "a.b"}]}),
    "twice": (ENCODER, {"heads": [HEAD, HEAD]}),
    "a head that is a number": (ENCODER, {"heads": [7]}),
    "labels that are a number": (ENCODER, {"heads": [{**HEAD, "labels": 7}]}),
    "labels that are lists": (ENCODER, {"heads": [{**HEAD, "labels": [[]]}]}),
    "2^40 types": (ENCODER, {"n_types": 2**40}),
    "no encoder": (TRANSFORMER, {"encoder_layers": []}),
    "an encoder of 5,000 layers": (TRANSFORMER, {"encoder_layers": [LAYER] * 5_000}),
    "an encoder that is no list": (TRANSFORMER, {"encoder_layers": 3}),
    "the encoder missing": (TRANSFORMER, {"encoder_layers": "missing"}),
    "a context of 2^31-1": (TRANSFORMER, {"context": 2**31 - 1}),
}


@pytest.mark.parametrize("name", SIDES)
def test_other_families_are_checked_too(tmp_path, name):
    config, changes = SIDES[name]
    lm = LanguageModel(another(config), Tokenizer.train([], kind="bytes", encoder=config is ENCODER))
    save(lm, tmp_path / "model")
    changed_config(tmp_path / "model", **changes)
    with pytest.raises(MinislmError) as caught:
        load(tmp_path / "model")
    assert caught.value.code in ("config_invalid", "config_vs_weights")


def test_saving_over_the_model_that_is_mapped(folder, lm):
    for _ in range(3):
        save(load(folder), folder)
    assert same(load(folder), lm)
    assert os.listdir(folder.parent) == ["model"]


@pytest.mark.parametrize(
    "settings",
    [
        GenerationSettings(),
        GenerationSettings(temperature=0.0, seed=2**64 - 1),
        GenerationSettings(top_p=0.5, stop=["x"]),
        GenerationSettings(temperature=0.0, n_beams=4, length_penalty=0.6),
    ],
)
def test_settings_stand_in_the_words_of_others(tmp_path, lm, settings):
    save(dataclasses.replace(lm, settings=settings), tmp_path / "model")
    assert load(tmp_path / "model").settings == settings
    values = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    assert values["do_sample"] is (settings.temperature > 0)
    assert values["eos_token_id"] == 256
    assert values["stop_strings"] == (list(settings.stop) or None)
    assert (values["num_beams"], values["length_penalty"]) == (settings.n_beams, settings.length_penalty)


def test_settings_of_others_are_understood(folder):
    values = {"eos_token_id": 256, "transformers_version": "5", "do_sample": True, "temperature": 0.7, "top_k": None}
    (folder / "generation_config.json").write_text(json.dumps(values))
    assert load(folder).settings == GenerationSettings(temperature=0.7, top_k=50)
    (folder / "generation_config.json").write_text('{"temperature": 0.7}')
    assert load(folder).settings.temperature == 0.0  # they sample only if told to
    (folder / "generation_config.json").unlink()
    assert load(folder).settings == GenerationSettings()
    for bad in (
        {"temperature": "hot"},
        {"top_k": []},
        {"minislm": []},
        {"minislm": {"colour": 1}},
        {"stop_strings": 5},
    ):
        (folder / "generation_config.json").write_text(json.dumps({**bad, "do_sample": True}))
        lm = load(folder)  # opens: it can be compressed and judged
        save(lm, folder.parent / "copy")
        for model in (lm, load(folder.parent / "copy")):
            with pytest.raises(ModelFileError, match=r"generation_config\.json") as caught:
                model.generate([1], max_new_tokens=1)
            assert caught.value.code == "config_invalid"
    assert measure_speed(lm, prompt_tokens=2, new_tokens=2, rounds=1).generation > 0
    assert peak_memory(folder, n_tokens=2, prompt_tokens=2).growth_bytes > 0
    assert len(lm.generate([1], max_new_tokens=1, stop=()).ids) == 1


@pytest.mark.oracle
def test_others_read_the_generation_config(tmp_path, lm):
    transformers = pytest.importorskip("transformers")
    save(dataclasses.replace(lm, settings=GenerationSettings(top_k=5, temperature=0.5, stop=["."])), tmp_path / "model")
    theirs = transformers.GenerationConfig.from_pretrained(tmp_path / "model")
    assert (theirs.top_k, theirs.temperature, theirs.do_sample, theirs.stop_strings) == (5, 0.5, True, ["."])


def changed_config(folder, **changes):
    """Change fields of the model's Config in config.json; None removes one."""
    path = folder / "config.json"
    values = json.loads(path.read_text())
    config = values["minislm"]["config"]
    config.update(changes)
    values["minislm"]["config"] = {name: value for name, value in config.items() if value != "missing"}
    path.write_text(json.dumps(values))


CONFIG_BOMBS = {
    "vocabulary of 2^31-1": {"vocab_size": 2**31 - 1},
    "width of 2^20": {"d_model": 2**20},
    "context of 2^31-1": {"context": 2**31 - 1},
    "one row less": {"vocab_size": 259},
    "one position more": {"context": 25},
    "one layer less": {"layers": [LAYER]},
    "one layer more": {"layers": [LAYER] * 3},
    "5,000 layers": {"layers": [LAYER] * 5_000},
    "more heads": {"layers": [{**LAYER, "n_heads": 8}] * 2},
    "wider heads": {"layers": [{**LAYER, "d_head": 2**30}] * 2},
    "d_ff of 2^31-1": {"layers": [LAYER, {**LAYER, "d_ff": 2**31 - 1}]},
    "untied": {"tied": False},
    "without biases": {"biases": ()},
    "rotary": {"positions": "rotary"},
    "rms": {"norm": "rms"},
    "gated": {"mlp": "gated"},
    "vocabulary 0": {"vocab_size": 0},
    "vocabulary negative": {"vocab_size": -260},
    "vocabulary 2^70": {"vocab_size": 2**70},
    "width float": {"d_model": 32.0},
    "width text": {"d_model": "32"},
    "width true": {"d_model": True},
    "width null": {"d_model": None},
    "width missing": {"d_model": "missing"},
    "field more": {"auto_map": {"AutoModel": "evil.Model"}},
    "no layers": {"layers": []},
    "layers null": {"layers": None},
    "layers number": {"layers": 10**9},
    "layers text": {"layers": "abc"},
    "layer null": {"layers": [None, None]},
    "layer field missing": {"layers": [{"n_heads": 4}] * 2},
    "layer field more": {"layers": [{**LAYER, "x": 1}] * 2},
    "heads 0": {"layers": [{**LAYER, "n_heads": 0}] * 2},
    "key heads 0": {"layers": [{**LAYER, "n_kv_heads": 0}] * 2},
    "key heads do not divide": {"layers": [{**LAYER, "n_kv_heads": 3}] * 2},
    "positions unknown": {"positions": "alibi"},
    "positions list": {"positions": ["learned"]},
    "activation null": {"activation": None},
    "eps 0": {"norm_eps": 0},
    "eps negative": {"norm_eps": -1e-5},
    "eps infinite": {"norm_eps": 1e999},
    "eps text": {"norm_eps": "small"},
    "eps 10^400": {"norm_eps": 10**400},
    "eps null": {"norm_eps": None},
    "base 0": {"positions": "rotary", "rotaries": [{"base": 0, "width": 4}]},
    "dropout 1": {"dropout": 1.0},
    "dropout text": {"dropout": "0.1"},
    "dropout list": {"dropout": []},
}


@pytest.mark.parametrize("name", CONFIG_BOMBS)
def test_impossible_configs_are_refused_before_anything_is_allocated(folder, name):
    changed_config(folder, **CONFIG_BOMBS[name])
    if name == "eps infinite":
        path = folder / "config.json"
        path.write_text(path.read_text().replace("Infinity", "1e999"))
    tracemalloc.start()
    try:
        with pytest.raises(MinislmError) as caught:
            load(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.code in ("config_invalid", "config_vs_weights")
    assert caught.value.exit_code == 1  # a damaged file is no wrong usage
    assert str(folder) in str(caught.value)
    assert peak < 32 * 2**20


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"minislm": []}, "config_invalid"),
        ({"minislm": {}}, "config_invalid"),
        ({"minislm": None, "model_type": "gpt2"}, "config_invalid"),
        ({"minislm": None, "model_type": ["x"] * 10**5}, "unknown_architecture"),
        ({"version": 2}, "unsupported_version"),
        ({"version": True}, "config_invalid"),
        ({"type": "decodre"}, "unknown_architecture"),
        ({"type": ["decoder"]}, "config_invalid"),
        ({"type": "os:system"}, "unknown_architecture"),
        ({"config": None}, "config_invalid"),
        ({"weights": []}, "config_invalid"),
        ({"weights": {"embedding.weight": {"type": "quantised"}}}, "unknown_weight"),
        ({"weights": {"embedding.weight": None}}, "config_invalid"),
        ({"weights": {"embedding.weight": {"type": "sum", "left": None}}}, "config_vs_weights"),
        ({"weights": {"embedding.weight": {"type": "dense", "shape": [2**40, 2**40]}}}, "bad_shape"),
        ({"history": {}}, "config_invalid"),
    ],
)
def test_impossible_sections_are_refused(folder, change, code):
    path = folder / "config.json"
    values = json.loads(path.read_text())
    if "minislm" in change:
        values.update(change)
    else:
        values["minislm"].update(change)
    path.write_text(json.dumps(values))
    with pytest.raises(MinislmError) as caught:
        load(folder)
    assert caught.value.code == code
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "edit",
    [
        lambda arrays: arrays.pop("final_norm.bias"),
        lambda arrays: arrays.update({"more": np.zeros(3, np.float32)}),
        lambda arrays: arrays.update({"final_norm.bias": np.zeros(33, np.float32)}),
        lambda arrays: arrays.update({"final_norm.bias": np.zeros((32, 1), np.float32)}),
        lambda arrays: arrays.update({"embedding.weight": arrays["embedding.weight"].T}),
        lambda arrays: arrays.update({"embedding.weight": np.zeros(260, np.float32)}),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder, edit):
    arrays = dict(safetensors.read(folder / "model.safetensors"))
    edit(arrays)
    safetensors.write(folder / "model.safetensors", arrays)
    with pytest.raises(ModelFileError) as caught:
        load(folder)
    assert caught.value.code == "config_vs_weights"
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("config", [ENCODER, TRANSFORMER, *(dataclasses.replace(SIZES, **how) for how in CHOICES)])
def test_a_model_opens_with_another_context_where_it_has_no_table_of_positions(tmp_path, config):
    save(LanguageModel(another(config), Tokenizer.train([], kind="bytes", encoder=config is ENCODER)), tmp_path / "m")
    if "positions.weight" in another(config).arrays():
        with pytest.raises(UsageError, match="24 positions") as caught:
            load(tmp_path / "m", context=8)
        assert caught.value.code == "bad_option"
    else:
        assert load(tmp_path / "m", context=8).model.config.context == 8


def test_files_may_begin_with_a_mark(folder):
    for file in folder.glob("*.json"):
        file.write_text(file.read_text(), encoding="utf-8-sig")
    assert load(folder).generate("a", max_new_tokens=1).ids


def test_a_tokenizer_of_another_model_is_refused(folder, lm):
    large = Tokenizer.train(["the for statement is used to iterate over the elements " * 3], 290)
    large.save(folder / "tokenizer.json")
    with pytest.raises(ModelFileError) as caught:
        load(folder)
    assert caught.value.code == "tokenizer_invalid"
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelFileError) as caught:
        load(folder)
    assert caught.value.code == "tokenizer_invalid"


def test_tokens_without_a_row_are_refused_where_a_text_has_them(tmp_path):
    inner = Tokenizer.train(["ab"], kind="characters").inner
    inner.add_special_tokens(["<image>"])
    inner.add_tokens(["aab"])
    save(LanguageModel(another(dataclasses.replace(SIZES, vocab_size=2)), Tokenizer(inner)), tmp_path / "m")
    lm = load(tmp_path / "m")
    assert (lm.tokenizer.vocab_size, lm.tokenizer.learned_ids) == (4, [0, 1])
    assert set(lm.generate("ab", max_new_tokens=9).ids) <= {0, 1}
    for prompt, told in (([0, 2], "'<image>', id 2"), ("baab", "'aab', id 3"), ([0, -1], "run from -1 to 0")):
        with pytest.raises(DataError) as caught:
            lm.generate(prompt)
        assert caught.value.code == "bad_token_ids"
        assert told in str(caught.value)


def test_logits_and_hidden_states(lm):
    ids = np.array([[1, 2, 3, 4], [5, 6, 0, 0]])
    mask = np.array([[True] * 4, [True, True, False, False]])
    logits = lm.logits(ids, mask)
    assert logits.shape == (2, 4, 260)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits[1, :2], lm.logits([5, 6]), rtol=1e-5, atol=1e-6)
    assert lm.encode(ids).shape == (2, 4, 32)
    assert lm.encode([1]).shape == (1, 32)
    with pytest.raises(GenerationError):
        lm.logits(range(25))
    for bad in ([[1, 2], [3]], [1.5], [260], [-1], 7, "text", [[[1]]]):
        with pytest.raises(DataError) as caught:
            lm.logits(bad)
        assert caught.value.code == "bad_token_ids"
    for bad_mask in ([True], [[True, True, True, True]], [[False, True, True, True]] * 2, [[0, 1, 0, 1]] * 2, True):
        with pytest.raises(UsageError) as wrong:
            lm.logits(ids, bad_mask)
        assert wrong.value.code == "bad_mask"


def test_generation_in_all_its_forms(lm):
    options = {"max_new_tokens": 6, "seed": 4, "ignore_eos": True}
    one = lm.generate("ab", **options)
    assert len(one.ids) == 6
    assert one.text == lm.tokenizer.decode(one.ids)
    assert lm.generate([97, 98], **options).ids == one.ids
    batch = lm.generate_batch(["ab", "a longer one", [97, 98]], **options)
    assert [generation.ids for generation in batch] == [one.ids, lm.generate("a longer one", **options).ids, one.ids]
    stream = lm.stream("ab", **options)
    assert "".join(stream) == one.text
    assert stream.result.ids == one.ids
    with pytest.raises(UsageError, match="colour"):
        lm.generate("ab", colour="red")


def python(code, *arguments):
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_import_costs_nothing():
    code = """
import sys, time
start = time.perf_counter()
import minislm
print(time.perf_counter() - start)
print(",".join(name for name in ("numpy", "numba", "tokenizers", "safetensors", "ml_dtypes") if name in sys.modules))
"""
    times = [python(code) for _ in range(3)]
    assert min(float(found[0]) for found in times) < 0.3
    assert all(len(found) == 1 for found in times)  # none of them


def test_public_names():
    for name in minislm.EXPORTS:
        assert callable(getattr(minislm, name))
        assert name in dir(minislm)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        minislm.nothing  # noqa: B018


def test_a_large_model_is_mapped_and_not_copied(tmp_path, plain_bytes):
    """Loading and running a file of more than 100 MB grows memory by at most 1.1 times the file."""
    if not os.path.exists("/proc/self/status"):
        pytest.skip("this system does not tell a process's peak memory")
    sizes = DecoderConfig.uniform(vocab_size=512, d_model=768, context=64, n_layers=4, n_heads=12)
    save(LanguageModel(Decoder.create(sizes), plain_bytes), tmp_path / "large")
    save(LanguageModel(Decoder.create(SIZES), plain_bytes), tmp_path / "small")
    code = """
import sys
from minislm.language_model import load
def resident(kind):  # of this process alone; getrusage would count the parent's peak before the exec
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(kind))
load(sys.argv[2]).generate("warm", max_new_tokens=2, ignore_eos=True)
before = resident("VmRSS")
lm = load(sys.argv[1])
loaded = resident("VmRSS")
lm.generate("The for statement", max_new_tokens=2, ignore_eos=True)
print(loaded - before, resident("VmHWM") - before)
"""
    n_bytes = (tmp_path / "large" / "model.safetensors").stat().st_size
    assert n_bytes > 100e6
    loaded, ran = map(int, python(code, tmp_path / "large", tmp_path / "small"))
    assert loaded < 0.1 * n_bytes
    assert ran <= 1.1 * n_bytes


def test_foreign_folders_say_what_is_known(folder):
    (folder / "config.json").write_text('{"model_type": "lama"}')
    with pytest.raises(UnsupportedError, match="'llama'"):
        load(folder)


def test_activations_are_chosen_when_a_model_is_loaded(tmp_path, lm):
    small, _ = minislm.compress(lm, Quantize("int4-32"))
    save(small, tmp_path / "small")
    ids = np.arange(20)
    found = {}
    for asked, stored in ((None, "int8-32"), ("int8", "int8-32"), ("int8-row", "int8-row"), ("float", "float")):
        loaded = load(tmp_path / "small", activations=asked)
        assert {spec["activations"] for spec in loaded.model.specs().values()} == {stored}
        found[asked] = loaded.logits(ids)
    assert np.array_equal(found[None], found["int8"])
    error = {asked: np.linalg.norm(found[asked] - found["float"]) for asked in ("int8", "int8-row")}
    assert 0 < error["int8"] < error["int8-row"] < 0.1 * np.linalg.norm(found["float"])


@pytest.mark.parametrize("asked", ["static", "int4", ""])
def test_activations_that_loading_cannot_choose_are_refused(asked, folder):
    with pytest.raises(UnsupportedError) as caught:
        load(folder, activations=asked)
    assert caught.value.code == "unknown_activations"


@pytest.mark.parametrize("asked", ["float16", "int4", ""])
def test_attention_that_loading_cannot_choose_is_refused(asked, folder):
    with pytest.raises(UnsupportedError) as caught:
        load(folder, attention=asked)
    assert caught.value.code == "unknown_attention"
