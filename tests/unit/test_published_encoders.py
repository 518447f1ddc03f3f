"""Published encoders from folders written by hand: other spellings of names, what a checkpoint holds, what it lacks."""

import json
import tracemalloc

import numpy as np
import pytest

from minislm.config import Head, LayerSizes
from minislm.errors import MinislmError, ModelFileError
from minislm.files import safetensors
from minislm.language_model import LanguageModel, load, save
from minislm.layers.base import PLAIN
from minislm.models.encoder import Encoder, EncoderConfig
from minislm.models.published_encoder import NEXT
from minislm.text.tokenizer import Tokenizer

WORDS, ANSWER = Head("words", "masked"), Head("answer", "span")
CLASSES, TAGS = Head("classes", "sequence", ("no", "perhaps", "yes")), Head("tags", "token", ("O", "B-x", "I-x"))
TEXTS = ["the cat sat on the mat", "a dog", "the cat and the dog sat on the mat and on the dog"]
HEADS = {
    "none": (),
    "words": (WORDS,),
    "words next": (WORDS, Head("next", "sequence", NEXT)),
    "next": (Head("next", "sequence", NEXT),),
    "classes": (CLASSES,),
    "tags": (TAGS,),
    "answer": (ANSWER,),
}
DISTILBERT = {"n_types": 0, "pooler_activation": "relu"}
KINDS = {
    f"bert, {name}": (heads, {"pooler": name in ("classes", "next", "words next")}) for name, heads in HEADS.items()
}
KINDS |= {"bert, sentences": ((), {"pooling": "mean", "embed_tokens": 20}), "bert, untied": ((WORDS,), {"tied": False})}
KINDS["bert, sentences of first"] = ((), {"normalized": False, "embed_tokens": 8, "activation": "gelu_tanh"})
KINDS |= {
    f"distilbert, {name}": (heads, {**DISTILBERT, "pooler": name == "classes"})
    for name, heads in HEADS.items()
    if "next" not in name
}
MOBILEBERT = {"bottleneck": {"width": 9, "n_mlps": 3, "d_embedding": 5}, "activation": "relu"}
KINDS |= {
    f"mobilebert, {name}": (heads, {**MOBILEBERT, "pooler": name in ("classes", "next", "words next")})
    for name, heads in HEADS.items()
}
KINDS["mobilebert, first position"] = ((CLASSES,), {**MOBILEBERT, "pooler": False})
KINDS["mobilebert, untied"] = ((WORDS,), {**MOBILEBERT, "pooler": False, "tied": False})


def tokenizer():
    return Tokenizer.train(TEXTS, 60, kind="wordpiece")


def made(heads, **choices):
    """A language model whose encoder is random in every number."""
    words = tokenizer()
    layers = (LayerSizes.of_width(choices.get("bottleneck", {}).get("width", 12), 3, d_ff=17),) * 2
    config = EncoderConfig(words.vocab_size, d_model=12, context=24, layers=layers, heads=heads, **choices)
    rng = np.random.default_rng(1)
    model = Encoder.create(config)
    arrays = {name: rng.standard_normal(array.shape).astype(np.float32) for name, array in model.arrays().items()}
    return LanguageModel(model.with_arrays(arrays), words)


def changed(folder, **values):
    """Change fields of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def renamed(folder, rename):
    """Give tensors other names; None drops one."""
    tensors = {rename(name): array.copy() for name, array in safetensors.read(folder / "model.safetensors").items()}
    tensors.pop(None, None)
    safetensors.write(folder / "model.safetensors", tensors)


def assert_same_arrays(a, b):
    ours, theirs = a.model.arrays(), b.model.arrays()
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_again(kind, tmp_path):
    heads, choices = KINDS[kind]
    lm = made(heads, **choices)
    save(lm, tmp_path / "model")
    values = json.loads((tmp_path / "model" / "config.json").read_text())
    assert values["model_type"] == kind.partition(",")[0]
    assert "type" not in values["minislm"]
    back = load(tmp_path / "model")
    assert back.model.config == lm.model.config
    assert_same_arrays(back, lm)
    save(back, tmp_path / "model")  # in place of itself, whatever the folder holds
    assert_same_arrays(load(tmp_path / "model"), lm)
    np.testing.assert_array_equal(back.embed(["a dog"]), lm.embed(["a dog"]))


@pytest.mark.parametrize(
    ("heads", "choices"),
    [
        ((Head("mood", "sequence", ("a", "b")),), {}),
        ((WORDS, ANSWER), {"pooler": False}),
        ((CLASSES,), {"pooler": False}),
        ((CLASSES,), {"pooling": "mean"}),
        ((), {"n_types": 0, "pooler": True}),
        ((), {"n_types": 0, "pooler": False, "norm_eps": 1e-6, **DISTILBERT}),
        ((), {"pooler_activation": "relu"}),
    ],
)
def test_what_the_format_cannot_say_is_said_in_our_words(heads, choices, tmp_path):
    lm = made(heads, **choices)
    save(lm, tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["model_type"] == "minislm_encoder"
    assert load(tmp_path / "model").model.config == lm.model.config


VERBS = {
    "words": lambda lm: lm.fill_mask("the [MASK] sat"),
    "next": lambda lm: lm.classify(["the cat"], ["a dog"], head="next"),
    "classes": lambda lm: lm.classify(TEXTS),
    "tags": lambda lm: lm.tag(TEXTS),
    "answer": lambda lm: lm.answer("the cat", TEXTS[0]),
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind][0]])
def test_the_verbs_say_what_they_said_before(kind, tmp_path):
    heads, choices = KINDS[kind]
    lm = made(heads, **choices)
    save(lm, tmp_path / "model")
    back = load(tmp_path / "model")
    for head in heads:
        assert VERBS[head.name](back) == VERBS[head.name](lm)


OLD = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta", "decoder.bias": "bias"}
SPELLINGS = {
    "first files": lambda name: next(
        (name.removesuffix(new) + old for new, old in OLD.items() if name.endswith(new)), name
    ),
    "no prefix": lambda name: name.removeprefix("bert."),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_names_are_spelled_in_several_ways(spelling, tmp_path):
    lm = made(HEADS["words next"])
    save(lm, tmp_path / "model")
    renamed(tmp_path / "model", SPELLINGS[spelling])
    assert_same_arrays(load(tmp_path / "model"), lm)


def test_copies_and_buffers_are_passed_over(tmp_path):
    lm = made((WORDS,), pooler=False)
    save(lm, tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    tensors = {name: array.copy() for name, array in safetensors.read(path).items()}
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].copy()
    tensors["cls.predictions.bias"] = tensors["cls.predictions.decoder.bias"].copy()
    tensors["bert.embeddings.position_ids"] = np.arange(24, dtype=np.float32)[None]
    safetensors.write(path, tensors)
    assert_same_arrays(load(tmp_path / "model"), lm)


@pytest.mark.parametrize(("pooler", "name"), [(True, "classes"), (False, "tags")])
def test_a_classifier_without_architectures_is_told_by_its_pooler(pooler, name, tmp_path):
    lm = made((CLASSES,) if pooler else (TAGS,), pooler=pooler)
    save(lm, tmp_path / "model")
    changed(tmp_path / "model", architectures=None)
    assert [head.name for head in load(tmp_path / "model").model.config.heads] == [name]


def test_classes_without_names_are_numbered(tmp_path):
    save(made((Head("classes", "sequence", ("a", "b")),)), tmp_path / "model")
    changed(tmp_path / "model", id2label=None)
    (found,) = load(tmp_path / "model").classify(["the cat"])
    assert set(found.scores) == {"LABEL_0", "LABEL_1"}


def without(ending):
    return lambda name: None if name.endswith(ending) else name


def short(folder):
    path = folder / "model.safetensors"
    tensors = {name: array.copy() for name, array in safetensors.read(path).items()}
    tensors["classifier.weight"] = tensors["classifier.weight"][:2]
    safetensors.write(path, tensors)


def more(folder):
    path = folder / "model.safetensors"
    safetensors.write(path, {**safetensors.read(path), "bert.adapter.weight": np.ones((3, 3), np.float32)})


BROKEN = {
    "tensor missing": (
        lambda f: renamed(f, without("layer.1.output.dense.bias")),
        "config_vs_weights",
        "layer.1.output.dense.bias",
    ),
    "pooler missing": (
        lambda f: renamed(f, without("pooler.dense.weight")),
        "config_vs_weights",
        "pooler.dense.weight",
    ),
    "tensor more": (more, "config_vs_weights", "bert.adapter.weight"),
    "tensor short": (short, "config_vs_weights", "classifier.weight"),
    "width huge": (lambda f: changed(f, hidden_size=3 * 2**29), "config_invalid", "hidden_size"),
    "vocabulary huge": (lambda f: changed(f, vocab_size=2**31 - 1), "config_vs_weights", "word_embeddings"),
    "width missing": (lambda f: changed(f, hidden_size=None), "config_invalid", "hidden_size"),
    "heads do not divide": (lambda f: changed(f, num_attention_heads=5), "config_invalid", "n_heads"),
    "activation unknown": (lambda f: changed(f, hidden_act="mish"), "unsupported_config", "hidden_act"),
    "decoder": (lambda f: changed(f, is_decoder=True), "unsupported_config", "is_decoder"),
    "relative positions": (
        lambda f: changed(f, position_embedding_type="relative_key"),
        "unsupported_config",
        "position_embedding_type",
    ),
    "multiple choice": (
        lambda f: changed(f, architectures=["BertForMultipleChoice"]),
        "unsupported_config",
        "architectures",
    ),
    "a problem of another kind": (
        lambda f: changed(f, problem_type="ranking"),
        "unsupported_config",
        "problem_type",
    ),
    "labels not numbered": (lambda f: changed(f, id2label={"0": "a", "2": "b"}), "config_invalid", "id2label"),
    "labels no text": (lambda f: changed(f, id2label={"0": "a", "1": 2}), "config_invalid", "id2label"),
    "labels too many": (lambda f: changed(f, id2label=None, num_labels=10**15), "config_invalid", "num_labels"),
}


def refused(folder):
    """Load what cannot be loaded; nothing large may be allocated on the way."""
    tracemalloc.start()
    try:
        with pytest.raises(MinislmError) as caught:
            load(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * 2**20
    assert str(folder) in str(caught.value) or caught.value.code == "config_invalid"
    return caught.value


@pytest.mark.parametrize("name", BROKEN)
def test_broken_folders_are_refused_before_anything_is_allocated(name, tmp_path):
    breaks, code, named = BROKEN[name]
    save(made((CLASSES,)), tmp_path / "model")
    breaks(tmp_path / "model")
    error = refused(tmp_path / "model")
    assert error.code == code
    assert named in str(error)


# folders of sentence encoders


def sentence(tmp_path, modules=("Transformer", "Pooling", "Normalize"), place="1_Pooling", **pooling):
    """A folder of the other library's newest layout."""
    save(made((), pooler=False), tmp_path / "model")
    places = ("", place, "2_Normalize", "3_Dense")
    (tmp_path / "model" / "1_Pooling").mkdir()
    files = {
        "modules.json": [
            {
                "idx": i,
                "name": str(i),
                "path": places[i],
                "type": f"sentence_transformers.base.modules.{kind.lower()}.{kind}",
            }
            for i, kind in enumerate(modules)
        ],
        "1_Pooling/config.json": {"embedding_dimension": 12, "pooling_mode": "mean", "include_prompt": True} | pooling,
        "tokenizer_config.json": {"model_max_length": 10**30},
    }
    for name, values in files.items():
        (tmp_path / "model" / name).write_text(json.dumps(values))
    return tmp_path / "model"


def test_new_and_old_layouts_say_the_same(tmp_path):
    folder = sentence(tmp_path)
    new = load(folder)
    assert new.model.config.embed_tokens == new.model.config.context
    old = {"word_embedding_dimension": 12, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(old))
    assert load(folder).model.config == new.model.config
    hidden = new.model.hidden(np.array([new.tokenizer.encode_pairs(TEXTS[:1])[0].ids]), PLAIN)[0]
    expected = hidden.mean(axis=0) / np.linalg.norm(hidden.mean(axis=0))
    np.testing.assert_allclose(new.embed(TEXTS[:1])[0], expected, rtol=1e-4, atol=1e-6)


def test_the_folder_says_how_vectors_are_made(tmp_path):
    lm = load(sentence(tmp_path, modules=("Transformer", "Pooling"), pooling_mode="cls"))
    hidden = lm.model.hidden(np.array([lm.tokenizer.encode_pairs(TEXTS[:1])[0].ids]), PLAIN)[0]
    np.testing.assert_allclose(lm.embed(TEXTS[:1])[0], hidden[0], rtol=1e-4, atol=1e-5)


def test_texts_are_cut_where_the_folder_says(tmp_path):
    folder = sentence(tmp_path)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 6, "do_lower_case": False}))
    lm = load(folder)
    with pytest.raises(MinislmError) as caught:
        lm.embed(TEXTS)
    assert caught.value.code == "context_length_exceeded"
    assert "limit 6" in str(caught.value)
    np.testing.assert_allclose(lm.embed(TEXTS, cut=True)[0], lm.embed(["the cat sat on"])[0], rtol=1e-4, atol=1e-6)


def written(name, values):
    return lambda folder: (folder / name).write_text(json.dumps(values))


STRANGE = {
    "dense": ({"modules": ("Transformer", "Pooling", "Normalize", "Dense")}, None, "unsupported_config", "Dense"),
    "elsewhere": ({"place": "../1_Pooling"}, None, "unsupported_config", "1_Pooling"),
    "pooling": ({"pooling_mode": "max"}, None, "unsupported_config", "pooling"),
    "two poolings": ({"pooling_mode": ["mean", "cls"]}, None, "unsupported_config", "pooling"),
    "width": ({"embedding_dimension": 13}, None, "config_invalid", "12 numbers"),
    "prompt": (
        {},
        written("config_sentence_transformers.json", {"default_prompt_name": "query"}),
        "unsupported_config",
        "prompt",
    ),
    "small letters": (
        {},
        written("sentence_bert_config.json", {"do_lower_case": True}),
        "unsupported_config",
        "do_lower_case",
    ),
    "no list": ({}, written("modules.json", {"0": "Pooling"}), "config_invalid", "modules.json"),
    "no pooling file": (
        {},
        lambda folder: (folder / "1_Pooling" / "config.json").unlink(),
        "config_invalid",
        "1_Pooling",
    ),
    "tokens": ({}, written("sentence_bert_config.json", {"max_seq_length": -5}), "config_invalid", "max_seq_length"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_sentence_folders_are_refused(name, tmp_path):
    options, change, code, named = STRANGE[name]
    folder = sentence(tmp_path, **options)
    if change is not None:
        change(folder)
    error = refused(folder)
    assert error.code == code
    assert named in str(error)


def test_a_copy_that_differs_in_one_number_is_no_copy(tmp_path, monkeypatch):
    monkeypatch.setattr("minislm.ops.tiles.TILE_BYTES", 64)  # so that it is found in the last of many tiles
    save(made((WORDS,), pooler=False), tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    tensors = {name: array.copy() for name, array in safetensors.read(path).items()}
    copy = tensors["bert.embeddings.word_embeddings.weight"].copy()
    copy[-1, -1] += 1
    safetensors.write(path, {**tensors, "cls.predictions.decoder.weight": copy})
    with pytest.raises(ModelFileError, match=r"cls\.predictions\.decoder") as caught:
        load(tmp_path / "model")
    assert caught.value.code == "config_vs_weights"
