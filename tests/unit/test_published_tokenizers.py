"""tokenizer.json of every published family: it is read, and gives the ids of the library that made it."""

import json

import pytest
import tokenizers

from minislm.errors import MinislmError, ModelFileError
from minislm.text.chat import encode_chat
from minislm.text.published import read_tokenizer, tokenizer_files
from minislm.text.roles import Roles
from minislm.text.tokenizer import Tokenizer
from tests.unit.published_tokenizers import FAMILIES, any_texts, byte_level, byte_pairs, family


def reference(name):
    """Return the library's own tokenizer, reading text as text."""
    inner = tokenizers.Tokenizer.from_str(family(name))
    inner.encode_special_tokens = True
    return inner


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_and_texts_are_those_of_the_library(name, rng):
    ours, theirs = Tokenizer.from_json(family(name)), reference(name)
    texts = any_texts(rng, 300)
    found = ours.encode_batch(texts)
    special = {number for token, number in ours.special_ids.items() if number != ours.unk_id}
    for text, ids in zip(texts, found, strict=True):
        expected = theirs.encode(text, add_special_tokens=False).ids
        if name != "T5" or not any(token in text for token in ours.special_ids):  # there the library does parse them
            assert ids == expected, ascii(text)
        assert not special & set(ids), ascii(text)
        assert ours.decode(ids) == theirs.decode(ids)
    for _ in range(100):
        ids = rng.integers(0, ours.vocab_size, int(rng.integers(1, 20))).tolist()
        assert ours.decode(ids) == theirs.decode(ids)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_stream_gives_out_the_whole_text(name, rng):
    ours = Tokenizer.from_json(family(name))
    for ids in ours.encode_batch(any_texts(rng, 100)):
        stream = ours.text_stream()
        pieces = [*map(stream.push, ids), stream.finish()]
        assert "".join(pieces) == ours.decode(ids)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("BERT uncased", ["[CLS]"], ["[SEP]"]),
        ("GPT-2", [], []),
        ("LLaMA 2", ["<s>"], []),
        ("Llama 3", ["<|begin_of_text|>"], []),
        ("Qwen", [], []),
        ("Gemma", ["<bos>"], []),
        ("T5", [], ["</s>"]),
    ],
)
def test_what_the_model_reads(name, before, after):
    ours = Tokenizer.from_json(family(name))
    spelled = [ours.tokens[number] for number in ours.encode_prompts(["The statement"])[0]]
    assert spelled == [*before, *(ours.tokens[number] for number in ours.encode("The statement")), *after]


@pytest.mark.parametrize("name", FAMILIES)
def test_damaged_files_raise_named_errors_only(name, rng):
    text = family(name)
    model = text.index('"model": {') if '"model": {' in text else text.index('"model":{')
    codes = set()
    for _ in range(150):
        start = int(rng.integers(model + 200 if rng.random() < 0.7 else len(text)))
        damaged = text[:start] + rng.choice(["", "0", '"', "{}", "null", "-1", "[]", ",", "9"]) + text[start + 1 :]
        try:
            made = Tokenizer.from_json(damaged)
            made.decode(made.encode("abc  é水 <s>"))
            made.decode([0, made.vocab_size - 1])
            codes.add(None)
        except MinislmError as error:
            codes.add(error.code)
    assert {None, "tokenizer_invalid"} <= codes


def folder(path, **files):
    for name, content in files.items():
        (path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_roles_are_read_from_the_first_file_that_names_them(tmp_path):
    tokens = ["<pad>", "<|end|>", "<|endoftext|>", "<|im_end|>"]
    text = byte_pairs(byte_level(), tokens).to_str()
    files = {
        "tokenizer.json": text,
        "config.json": {"eos_token_id": 400, "pad_token_id": 400, "bos_token_id": [403, 1]},
    }
    assert read_tokenizer(folder(tmp_path, **files)).roles == Roles(eos="<pad>", pad="<pad>", bos="<|im_end|>")
    folder(tmp_path, **{"special_tokens_map.json": {"eos_token": {"content": "<|end|>", "lstrip": False}}})
    assert read_tokenizer(tmp_path).roles.eos == "<|end|>"
    config = {"eos_token": "<|im_end|>", "bos_token": None, "model_max_length": 10**30, "unk_token": "<|endoftext|>"}
    folder(tmp_path, **{"tokenizer_config.json": {**config, "clean_up_tokenization_spaces": True}})
    made = read_tokenizer(tmp_path)
    assert made.roles == Roles(eos="<|im_end|>", pad="<pad>", unk="<|endoftext|>", clean_up=True)
    assert (made.eos_id, made.bos_id, made.pad_id) == (403, None, 400)
    assert Tokenizer.from_json(text).roles == Roles(eos="<|endoftext|>", pad="<pad>")


def test_tokens_that_only_the_configuration_has(tmp_path):
    added = {"403": {"content": "<tool>", "special": False}, "402": {"content": "<|end|>", "special": True}}
    files = {
        "tokenizer.json": byte_pairs(byte_level(), ["<|endoftext|>", "<|im_start|>"]).to_str(),
        "tokenizer_config.json": {"added_tokens_decoder": added, "eos_token": "<|end|>"},
    }
    made = read_tokenizer(folder(tmp_path, **files))
    assert made.eos_id == 402
    assert 403 in made.encode("a <tool> b")
    assert 402 not in made.encode("a <|end|> b")
    assert made.decode([*made.encode("a"), 402]) == "a"


LISTED = {
    "in a list": {"tokenizer_config.json": {"additional_special_tokens": ["<|end|>", "<never>"]}},
    "under its new name": {"tokenizer_config.json": {"extra_special_tokens": ["<|end|>"]}},
    "by names": {"tokenizer_config.json": {"extra_special_tokens": {"end_token": "<|end|>"}}},
    "in the older file": {"special_tokens_map.json": {"additional_special_tokens": [{"content": "<|end|>"}]}},
    "with its number": {
        "tokenizer_config.json": {"added_tokens_decoder": {"401": {"content": "<|end|>", "special": True}}}
    },
}


@pytest.mark.parametrize("name", LISTED)
def test_tokens_that_a_file_lists_are_special(tmp_path, name):
    inner = byte_pairs(byte_level(), ["<|endoftext|>"])
    inner.add_tokens([tokenizers.AddedToken("<|end|>", normalized=False, rstrip=True), "<think>"])
    template = "{% for m in messages %}{{ m.content }}<|end|>\n{% endfor %}"
    files = {"tokenizer.json": inner.to_str(), "chat_template.jinja": template, **LISTED[name]}
    made = read_tokenizer(folder(tmp_path, **files))
    assert made.special_ids == {"<|endoftext|>": 400, "<|end|>": 401}
    assert inner.encode("a <|end|> b").ids.count(401) == 1
    assert 401 not in made.encode("a <|end|> b")
    assert 402 in made.encode("a <think> b")
    assert made.decode([401, *made.encode("a"), 401]) == "a"
    ids = encode_chat(made, [{"role": "user", "content": "x<|end|>y"}])
    assert (ids.count(401), ids[-1]) == (1, 401)  # the template's; it takes the line's end, as it did


def test_ids_without_a_token(tmp_path, rng):
    content = json.loads(family("GPT-2"))
    n_tokens = len(content["model"]["vocab"])
    places = {"<|start|>": n_tokens + 7, "<|stop|>": n_tokens + 30}
    content["model"]["vocab"] |= places
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content["added_tokens"] = [{"id": n, "content": token, "special": True, **flags} for token, n in places.items()]
    config = {"eos_token": "<|stop|>"}
    made = read_tokenizer(folder(tmp_path, **{"tokenizer.json": content, "tokenizer_config.json": config}))
    assert (made.vocab_size, made.eos_id, made.special_ids) == (n_tokens + 31, n_tokens + 30, places)
    assert made.tokens.keys() == {*range(n_tokens), *places.values()}
    theirs = tokenizers.Tokenizer.from_str(json.dumps(content))
    theirs.encode_special_tokens = True
    for text in any_texts(rng, 100):
        assert made.encode(text) == theirs.encode(text).ids
        assert made.decode([*made.encode(text), n_tokens + 1, n_tokens + 30]) == made.decode(made.encode(text))
    (tmp_path / "copy").mkdir()
    back = read_tokenizer(folder(tmp_path / "copy", **tokenizer_files(made)))
    assert (back.tokens, back.special_ids, back.roles) == (made.tokens, made.special_ids, made.roles)
    made.require_same_tokens(back)
    content["model"]["vocab"]["<|start|>"] = n_tokens + 30
    with pytest.raises(ModelFileError, match=f"have the same id, {n_tokens + 30}") as caught:
        read_tokenizer(folder(tmp_path, **{"tokenizer.json": content}))
    assert caught.value.code == "tokenizer_invalid"


def test_chat_templates_are_found_in_every_place(tmp_path):
    files = {"tokenizer.json": family("Qwen"), "tokenizer_config.json": {"chat_template": "one"}}
    assert read_tokenizer(folder(tmp_path, **files)).roles.templates == {"default": "one"}
    named = [{"name": "default", "template": "two"}, {"name": "tool_use", "template": "three"}]
    folder(tmp_path, **{"tokenizer_config.json": {"chat_template": named}})
    made = read_tokenizer(tmp_path)
    assert made.roles.templates == {"default": "two", "tool_use": "three"}
    folder(tmp_path, **{"chat_template.jinja": "four"})
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("five")
    assert read_tokenizer(tmp_path).roles.templates == {"default": "four", "tool_use": "three", "rag": "five"}


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_written_is_read_back(tmp_path, name, rng):
    config = {"model_max_length": 99, "chat_template": [{"name": "a", "template": "b"}], "bos_token": None}
    made = read_tokenizer(folder(tmp_path, **{"tokenizer.json": family(name), "tokenizer_config.json": config}))
    copy = tmp_path / "copy"
    copy.mkdir()
    back = read_tokenizer(folder(copy, **tokenizer_files(made)))
    assert back.roles == made.roles
    assert (back.tokens, back.special_ids, back.around) == (made.tokens, made.special_ids, made.around)
    texts = any_texts(rng, 50)
    assert back.encode_prompts(texts) == made.encode_prompts(texts)


def test_word_lists_and_merges(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "state", "##ment", "The"]
    files = {"vocab.txt": "".join(f"{word}\n" for word in words)}
    made = read_tokenizer(folder(tmp_path, **files))
    assert made.encode_prompts(["The statement"]) == [[2, 5, 6, 7, 3]]
    assert made.encode_pairs(["the"], ["the"])[0].ids == [2, 5, 3, 5, 3]
    folder(tmp_path, **{"tokenizer_config.json": {"do_lower_case": False}})
    assert read_tokenizer(tmp_path).encode("The state") == [8, 6]
    vocab = {"a": 0, "b": 1, "ab": 2, "Ġ": 3, "Ġab": 4, "<|endoftext|>": 5}
    folder(tmp_path, **{"vocab.json": vocab, "merges.txt": "#version: 0.2\na b\nĠ ab\n"})
    made = read_tokenizer(tmp_path)
    assert made.encode("ab ab a<|endoftext|>") == [2, 4, 3, 0]  # the library passes over bytes without a token
    assert made.eos_id == 5
    folder(tmp_path, **{"tokenizer_config.json": {"add_bos_token": True, "bos_token": "<|endoftext|>"}})
    assert read_tokenizer(tmp_path).encode_prompts(["ab"]) == [[5, 2]]


BAD_FOLDERS = {
    "nothing": ({}, "tokenizer_missing"),
    "half of a pair": ({"merges.txt": "a b"}, "tokenizer_missing"),
    "configuration is a list": ({"vocab.txt": "a", "tokenizer_config.json": []}, "tokenizer_invalid"),
    "configuration is no JSON": ({"vocab.txt": "a", "tokenizer_config.json": "{"}, "tokenizer_invalid"),
    "words without special tokens": ({"vocab.txt": "a\nb\n"}, "tokenizer_invalid"),
    "word twice": ({"vocab.txt": "[UNK]\n[CLS]\n[SEP]\na\na\n"}, "tokenizer_invalid"),
    "merge of three": ({"vocab.json": {"a": 0}, "merges.txt": "a a a"}, "tokenizer_invalid"),
    "merge of nothing": ({"vocab.json": {"a": 0}, "merges.txt": "a b"}, "tokenizer_invalid"),
    "number twice": ({"vocab.json": {"a": 0, "b": 0}, "merges.txt": ""}, "tokenizer_invalid"),
    "number that is text": ({"vocab.json": {"a": "0"}, "merges.txt": ""}, "tokenizer_invalid"),
    "Marian without source": ({"vocab.json": {"a": 0}, "target.spm": ""}, "tokenizer_missing"),
    "Marian's models empty": ({"vocab.json": {"a": 0}, "target.spm": "", "source.spm": ""}, "tokenizer_invalid"),
    "end that is no token": ({"eos_token": "<end>"}, "tokenizer_invalid"),
    "end that is a number": ({"eos_token": 5}, "tokenizer_invalid"),
    "template that is a number": ({"chat_template": 5}, "tokenizer_invalid"),
    "template without a name": ({"chat_template": [{"template": "x"}]}, "tokenizer_invalid"),
    "added token with a used number": ({"added_tokens_decoder": {"5": {"content": "<x>"}}}, "tokenizer_invalid"),
    "added token without text": ({"added_tokens_decoder": {"401": {}}}, "tokenizer_invalid"),
    "added token with a strange number": ({"added_tokens_decoder": {"x": {"content": "<x>"}}}, "tokenizer_invalid"),
    "special tokens that are numbers": ({"additional_special_tokens": [5]}, "tokenizer_invalid"),
    "special tokens in no list": ({"additional_special_tokens": 5}, "tokenizer_invalid"),
    "added tokens in a list": ({"added_tokens_decoder": ["<x>"]}, "tokenizer_invalid"),
    "our own words": ({"minislm": {"spm": {"strip": True}}}, "tokenizer_invalid"),
    "our own number": ({"minislm": {"n_tokens": -1}}, "tokenizer_invalid"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_bad_folder_is_named(tmp_path, name):
    files, code = BAD_FOLDERS[name]
    if files and not any("." in file for file in files):
        files = {"tokenizer.json": family("GPT-2"), "tokenizer_config.json": files}
    with pytest.raises(ModelFileError) as caught:
        read_tokenizer(folder(tmp_path, **files))
    assert caught.value.code == code
    assert str(tmp_path) in str(caught.value)
