"""Tokenizers out of GGUF settings against those that the settings were made from, on texts of every kind."""

import json

import numpy as np
import pytest
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from minislm.errors import MinislmError, ModelFileError, UnsupportedError
from minislm.files.gguf_tokenizer import WORDS, tokenizer_of

SAMPLE = [
    "The for statement is used to iterate over the elements of a sequence: 12345 times, isn't it?\n\n",
    "    def größer(x):\n        return x * 3.14159  # naïve cafe\u0301 12345 水\r\n",
    "THE QUICK brown fox's jumped; they'll see <b>7,000,000</b>\tlazy dogs   and   more\n",
] * 6
PIECES = (
    "the", "The", "x", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "'s", "'LL", "n't", "1", "2024", "12345", "３",
    "½", ".", "...", "!?", "$", "+", "'", "’", "-", "_", "größer", "naïve", "cafe\u0301", "水", "한국어", "שלום",
    "\u00a0", "\u200b", "\ufeff", "\u2028", "\u3000", "\x00", "\x7f", "\ufffd", "Ġ", "<s>", "<|end|>", "<|begin|>",
    "<tool>", "(^~|)=", "\U0001f469\u200d\U0001f467",
)  # fmt: skip
LLAMA3 = (
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")


def some_texts(rng, count=300):
    texts = ["", " ", "\n"]
    while len(texts) < count:
        parts = [
            PIECES[rng.integers(len(PIECES))] if rng.random() < 0.8 else chr(int(rng.integers(0x21, 0xD7FF)))
            for _ in range(rng.integers(1, 12))
        ]
        texts.append("".join(parts))
    return texts


def byte_level(use_regex=True):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def split(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level(use_regex=False)])


PIPELINES = {
    "gpt-2": byte_level(),
    "phi-2": byte_level(),
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()]),
    "llama-bpe": split(LLAMA3),
    "qwen2": split(QWEN2),
}


def learned(name):
    """Train a small tokenizer with the pipeline of a published family.

    It learns pairs across the words of all families, so that it shows where words begin and end.
    """
    inner = tokenizers.Tokenizer(models.BPE(ignore_merges=name == "llama-bpe"))
    inner.pre_tokenizer = byte_level(use_regex=False)
    inner.train_from_iterator(
        SAMPLE,
        trainers.BpeTrainer(vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False),
    )
    inner.pre_tokenizer, inner.decoder = PIPELINES[name], decoders.ByteLevel()
    inner.normalizer = normalizers.NFC() if name == "qwen2" else None
    inner.add_special_tokens([AddedToken(token, normalized=False) for token in ("<|begin|>", "<|end|>")])
    inner.add_tokens([AddedToken("<tool>", normalized=False)])
    if name == "llama-bpe":
        begin = inner.token_to_id("<|begin|>")
        inner.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", pair="<|begin|> $A <|begin|> $B", special_tokens=[("<|begin|>", begin)]
        )
    return inner


def settings_of(inner, name, n_rows=None, **others):
    """Say a tokenizer as llama.cpp's converter does: rows of the embedding without a token are unused."""
    model = json.loads(inner.to_str())["model"]
    added = inner.get_added_tokens_decoder()
    tokens, types = [], []
    for number in range(n_rows or inner.get_vocab_size()):
        token = inner.id_to_token(number)
        tokens.append(f"[PAD{number}]" if token is None else token)
        kind = 5 if token is None else 1
        if number in added:
            kind = 3 if added[number].special else 4
        types.append(kind)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": name,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": inner.token_to_id("<|begin|>"),
        "tokenizer.ggml.eos_token_id": inner.token_to_id("<|end|>"),
        **others,
    }


@pytest.mark.parametrize("name", PIPELINES)
def test_ids_are_those_of_the_tokenizer_it_was_made_from(name, rng):
    inner = learned(name)
    text, roles, _ = tokenizer_of(settings_of(inner, name, n_rows=720), "m.gguf")
    ours = tokenizers.Tokenizer.from_str(text)
    assert ours.get_vocab() == inner.get_vocab()
    assert roles == {"bos_token": "<|begin|>", "eos_token": "<|end|>"}
    for sample in some_texts(rng):
        for plain in (False, True):
            ours.encode_special_tokens = inner.encode_special_tokens = plain
            expected = inner.encode(sample)
            found = ours.encode(sample)
            assert found.ids == expected.ids, sample
            assert ours.decode(found.ids) == inner.decode(expected.ids)
            assert ours.encode(sample, "x").ids == inner.encode(sample, "x").ids


@pytest.mark.parametrize(("name", "other"), [("gpt-2", "smollm"), ("smollm", "qwen2"), ("qwen2", "llama-bpe")])
def test_words_cut_in_another_way_are_caught(name, other, rng, monkeypatch):
    monkeypatch.setitem(WORDS, name, WORDS[other])
    with pytest.raises(AssertionError):
        test_ids_are_those_of_the_tokenizer_it_was_made_from(name, rng)


def test_files_without_a_name_for_words_are_cut_as_llama_cpp_does(rng):
    regex = pytest.importorskip("regex")
    patterns = (
        r"[\p{P}\$\+<=>\^~\|]+",
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
        r"\p{N}+",
        "[0-9][0-9][0-9]",
    )

    def cut(words, pattern):
        """Cut words at matches; what lies between them stays together."""
        found = []
        for word in words:
            end = 0
            for match in regex.finditer(pattern, word):
                found += [word[end : match.start()], match.group()]
                end = match.end()
            found.append(word[end:])
        return [word for word in found if word]

    pipeline = {**WORDS["default"], "pretokenizers": WORDS["default"]["pretokenizers"][:-1]}
    carrier = {**json.loads(learned("gpt-2").to_str()), "pre_tokenizer": pipeline}
    inner = tokenizers.Tokenizer.from_str(json.dumps(carrier)).pre_tokenizer
    for text in some_texts(rng):
        expected = [text]
        for pattern in patterns:
            expected = cut(expected, pattern)
        assert [word for word, _ in inner.pre_tokenize_str(text)] == expected, text


def test_the_tokenizer_json_of_a_file_comes_first():
    inner = learned("gpt-2")
    settings = settings_of(inner, "gpt-2", **{"tokenizer.huggingface.json": '{"anything": 1}'})
    assert tokenizer_of(settings, "m.gguf")[0] == '{"anything": 1}'


def test_roles_template_and_ends():
    inner = learned("gpt-2")
    more = {
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": True,
        "tokenizer.ggml.eot_token_id": 7,
        "tokenizer.ggml.padding_token_id": 5,
        "tokenizer.ggml.unknown_token_id": 6,
        "tokenizer.chat_template": "{{ messages }}",
    }
    settings = settings_of(inner, "gpt-2", **more)
    begin, end = inner.token_to_id("<|begin|>"), inner.token_to_id("<|end|>")
    text, roles, generation = tokenizer_of(settings, "m.gguf")
    ours = tokenizers.Tokenizer.from_str(text)
    assert ours.encode("x").ids == [begin, *inner.encode("x").ids, end]
    assert roles["pad_token"] == inner.id_to_token(5)
    assert roles["unk_token"] == inner.id_to_token(6)
    assert (roles["add_bos_token"], roles["add_eos_token"]) == (True, True)
    assert roles["chat_template"] == "{{ messages }}"
    assert generation == {"bos_token_id": begin, "eos_token_id": [7, end], "pad_token_id": 5}


def test_as_many_tokens_as_large_models_have():
    words = [f"word{number}" for number in range(60_000)]
    tokens = [*words, "s", *(f"{word}s" for word in words)]
    settings = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": [f"{word} s" for word in words],
    }
    assert len(json.loads(tokenizer_of(settings, "m.gguf").text)["model"]["merges"]) == 60_000


BAD = {
    "another kind": ({"tokenizer.ggml.model": "bert"}, "unsupported_tokenizer"),
    "no kind": ({"tokenizer.ggml.model": None}, "tokenizer_invalid"),
    "unknown words": ({"tokenizer.ggml.pre": "deepseek-llm"}, "unsupported_tokenizer"),
    "name of words that is a number": ({"tokenizer.ggml.pre": 3}, "tokenizer_invalid"),
    "no tokens": ({"tokenizer.ggml.tokens": []}, "tokenizer_invalid"),
    "tokens that are numbers": ({"tokenizer.ggml.tokens": np.arange(3)}, "tokenizer_invalid"),
    "tokens among lists": ({"tokenizer.ggml.tokens": ["a", ["b"]]}, "tokenizer_invalid"),
    "a token twice": ({"tokenizer.ggml.tokens": ["a", "b", "a"]}, "tokenizer_invalid"),
    "a token without text": ({"tokenizer.ggml.tokens": ["a", ""]}, "tokenizer_invalid"),
    "too few types": ({"tokenizer.ggml.token_type": np.ones(3, np.int32)}, "tokenizer_invalid"),
    "types that are fractions": ({"tokenizer.ggml.token_type": np.ones(9999, np.float32)}, "tokenizer_invalid"),
    "types that are texts": ({"tokenizer.ggml.token_type": ["1"] * 9999}, "tokenizer_invalid"),
    "only unused tokens": ({"tokenizer.ggml.token_type": np.full(9999, 5)}, "tokenizer_invalid"),
    "no merges": ({"tokenizer.ggml.merges": None}, "tokenizer_invalid"),
    "a merge of one": ({"tokenizer.ggml.merges": ["a"]}, "tokenizer_invalid"),
    "a merge of three": ({"tokenizer.ggml.merges": ["a b c"]}, "tokenizer_invalid"),
    "a merge of strangers": ({"tokenizer.ggml.merges": ["e zzzz"]}, "tokenizer_invalid"),
    "a merge to no token": ({"tokenizer.ggml.merges": ["z z"]}, "tokenizer_invalid"),
    "end beyond the tokens": ({"tokenizer.ggml.eos_token_id": 10**6}, "tokenizer_invalid"),
    "end before the tokens": ({"tokenizer.ggml.eos_token_id": -1}, "tokenizer_invalid"),
    "end that is a text": ({"tokenizer.ggml.eos_token_id": "e"}, "tokenizer_invalid"),
    "flag that is a number": ({"tokenizer.ggml.add_bos_token": 1}, "tokenizer_invalid"),
    "template that is a list": ({"tokenizer.chat_template": ["x"]}, "tokenizer_invalid"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_named(name):
    changes, code = BAD[name]
    settings = {**settings_of(learned("gpt-2"), "gpt-2"), **changes}
    settings = {key: value for key, value in settings.items() if value is not None}
    with pytest.raises(MinislmError) as caught:
        tokenizer_of(settings, "m.gguf")
    assert caught.value.code == code
    assert isinstance(caught.value, UnsupportedError if code == "unsupported_tokenizer" else ModelFileError)
    assert "m.gguf" in str(caught.value)
