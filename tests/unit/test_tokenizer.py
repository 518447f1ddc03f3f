"""Tokenizers: what each kind promises, and the tokenizer.json files that are refused."""

import contextlib
import copy
import json
import subprocess
import sys

import numpy as np
import pytest

from minislm.errors import DataError, MinislmError, ModelFileError, NotFoundError, UnsupportedError, UsageError
from minislm.text.tokenizer import Tokenizer

TEXT = "The for statement is used to iterate over the elements of a sequence.\n\nfor x in y: print(x)\n" * 4
ODD = "größer, 水, 👩‍👩‍👧, \x00\t\r\n <|endoftext|> \u00a0 naïve e\u0301"


@pytest.fixture(scope="module")
def pairs():
    return Tokenizer.train([TEXT], 300)


@pytest.fixture(scope="module")
def plain_bytes():
    return Tokenizer.train([], kind="bytes")


def test_bytes_are_their_own_ids(plain_bytes):
    assert plain_bytes.vocab_size == 257
    assert plain_bytes.eos_id == 256
    assert plain_bytes.encode(ODD) == list(ODD.encode())
    for byte in range(256):
        assert plain_bytes.decode([byte]) == bytes([byte]).decode(errors="replace")


def test_pairs_learn_and_end_with_the_end_of_text(pairs):
    assert pairs.vocab_size == 300
    assert pairs.eos_id == 299
    assert len(pairs.encode(TEXT)) < len(TEXT) / 2
    assert pairs.decode(pairs.encode(ODD)) == ODD  # what was never seen is spelled in bytes


def test_characters_are_exactly_the_distinct_ones():
    tokenizer = Tokenizer.train([TEXT, "Zebra"], kind="characters")
    assert tokenizer.tokens == tuple(sorted(set(TEXT + "Zebra")))
    assert tokenizer.eos_id is None
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert len(tokenizer.encode(TEXT)) == len(TEXT)
    with pytest.raises(DataError, match="text 1, character 2: '!'") as caught:
        tokenizer.encode_batch(["a", "of!"])
    assert caught.value.code == "unencodable_text"


def test_too_little_text_gives_fewer_tokens():
    assert Tokenizer.train(["ab ab"], 1000).vocab_size < 262


def test_training_repeats_in_another_process(tmp_path, pairs):
    code = f"from minislm.text.tokenizer import Tokenizer; print(Tokenizer.train([{TEXT!r}], 300).to_json(), end='')"
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert again.stdout == pairs.to_json()
    assert again.stderr == ""


def test_text_never_becomes_a_control_token(pairs, plain_bytes):
    for tokenizer in (pairs, plain_bytes):
        ids = tokenizer.encode("a<|endoftext|>b")
        assert tokenizer.eos_id not in ids
        assert tokenizer.decode(ids) == "a<|endoftext|>b"
        assert tokenizer.decode([*tokenizer.encode("a"), tokenizer.eos_id, *tokenizer.encode("b")]) == "ab"


def test_documents_are_ended(pairs):
    ids = pairs.encode_documents(["for x", "", "of"])
    assert ids.dtype == np.int32
    assert ids.tolist() == [*pairs.encode("for x"), 299, 299, *pairs.encode("of"), 299]
    assert pairs.encode_documents([]).shape == (0,)
    characters = Tokenizer.train(["ab"], kind="characters")
    assert characters.encode_documents(["ab", "ba"]).tolist() == [0, 1, 1, 0]


def test_save_then_load(tmp_path, pairs, plain_bytes):
    for tokenizer in (pairs, plain_bytes, Tokenizer.train(["a\nb"], kind="characters")):
        tokenizer.save(tmp_path / "tokenizer.json")
        back = Tokenizer.load(tmp_path / "tokenizer.json")
        assert back.to_json() == tokenizer.to_json()
        assert back.tokens == tokenizer.tokens
        assert back.eos_id == tokenizer.eos_id
        assert back.encode("a\nb") == tokenizer.encode("a\nb")


@pytest.mark.oracle
def test_the_library_of_others_reads_the_file(tmp_path, pairs):
    transformers = pytest.importorskip("transformers")
    pairs.save(tmp_path / "tokenizer.json")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert theirs("for x in y")["input_ids"] == pairs.encode("for x in y")


def test_vocabularies_are_compared_token_by_token(pairs, plain_bytes):
    same = Tokenizer.from_json(pairs.to_json())
    assert pairs.same_tokens(same)
    pairs.require_same_tokens(same)
    other = Tokenizer.train([TEXT[::-1]], 300)  # as many tokens, other ones
    for different in (other, plain_bytes, Tokenizer.train([TEXT], 299)):
        assert not pairs.same_tokens(different)
        with pytest.raises(UnsupportedError) as caught:
            pairs.require_same_tokens(different)
        assert caught.value.code == "vocabulary_differs"
    content = json.loads(pairs.to_json())
    vocab = content["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    with pytest.raises(UnsupportedError, match=r"is '[ab]' in one and '[ab]' in the other"):
        pairs.require_same_tokens(Tokenizer.from_json(json.dumps(content)))


@pytest.mark.parametrize("ids", [[-1], [0, 300], [2**40]])
def test_ids_outside_the_vocabulary(pairs, ids):
    with pytest.raises(DataError) as caught:
        pairs.decode(ids)
    assert caught.value.code == "bad_token_ids"


@pytest.mark.parametrize("text", ["half \ud83d", 5, None, b"bytes"])
def test_what_is_no_text(pairs, text):
    with pytest.raises(DataError) as caught:
        pairs.encode(text)
    assert caught.value.code == "unencodable_text"
    assert "text 0" in str(caught.value)


def test_bad_training():
    for arguments, code in [
        ({"kind": "pairs"}, "unknown_tokenizer_kind"),
        ({}, "bad_vocab_size"),
        ({"vocab_size": 256}, "bad_vocab_size"),
        ({"vocab_size": 256, "kind": "bytes"}, "bad_vocab_size"),
    ]:
        with pytest.raises((UsageError, UnsupportedError)) as caught:
            Tokenizer.train([TEXT], **arguments)
        assert caught.value.code == code
    for kind in ("bpe", "characters"):
        for texts in ([], ["", ""]):
            with pytest.raises(DataError) as empty:
                Tokenizer.train(texts, 300 if kind == "bpe" else None, kind=kind)
            assert empty.value.code == "empty_text"


def change(*path, to=None, drop=False):
    """Make a function that changes one value of a tokenizer.json."""

    def apply(content):
        for key in path[:-1]:
            content = content[key]
        if drop:
            del content[path[-1]]
        else:
            content[path[-1]] = to

    return apply


def add_merge(*merge):
    return lambda content: content["model"]["merges"].append(list(merge))


BAD = {
    "no model": (change("model", drop=True), "tokenizer_invalid"),
    "model is null": (change("model"), "unsupported_tokenizer"),
    "model is text": (change("model", to="BPE"), "tokenizer_invalid"),
    "model of another type": (change("model", "type", to="Unigram"), "unsupported_tokenizer"),
    "no vocabulary": (change("model", "vocab", drop=True), "tokenizer_invalid"),
    "vocabulary is null": (change("model", "vocab"), "tokenizer_invalid"),
    "vocabulary is empty": (change("model", "vocab", to={}), "tokenizer_invalid"),
    "vocabulary is a list": (change("model", "vocab", to=["a"]), "tokenizer_invalid"),
    "id negative": (change("model", "vocab", "a", to=-1), "tokenizer_invalid"),
    "id 2^31": (change("model", "vocab", "a", to=2**31), "tokenizer_invalid"),
    "id 2^64": (change("model", "vocab", "a", to=2**64), "tokenizer_invalid"),
    "id twice": (change("model", "vocab", "a", to=5), "tokenizer_invalid"),
    "id float": (change("model", "vocab", "a", to=5.0), "tokenizer_invalid"),
    "id text": (change("model", "vocab", "a", to="5"), "tokenizer_invalid"),
    "id with a gap": (change("model", "vocab", "a", to=1000), "tokenizer_invalid"),
    "merge of an unknown token": (add_merge("a", "never"), "tokenizer_invalid"),
    "merge to an unknown token": (add_merge("the", "the"), "tokenizer_invalid"),
    "merge of one": (add_merge("a"), "tokenizer_invalid"),
    "merge of three": (add_merge("a", "b", "c"), "tokenizer_invalid"),
    "merges are null": (change("model", "merges"), "tokenizer_invalid"),
    "dropout": (change("model", "dropout", to=0.5), "unsupported_tokenizer"),
    "prefix": (change("model", "continuing_subword_prefix", to="####"), "unsupported_tokenizer"),
    "suffix": (change("model", "end_of_word_suffix", to="##"), "unsupported_tokenizer"),
    "special token with a used id": (change("added_tokens", 0, "id", to=5), "tokenizer_invalid"),
    "special token far away": (change("added_tokens", 0, "id", to=2**31), "tokenizer_invalid"),
    "special token without text": (change("added_tokens", 0, "content", drop=True), "tokenizer_invalid"),
    "added tokens missing": (change("added_tokens", drop=True), "tokenizer_invalid"),
    "added tokens null": (change("added_tokens"), "tokenizer_invalid"),
    "normalizer": (change("normalizer", to={"type": "NFC"}), "unsupported_tokenizer"),
    "normalizer that stops the process": (
        change("normalizer", to={"type": "Precompiled", "precompiled_charsmap": ""}), "unsupported_tokenizer"),
    "no decoder": (change("decoder"), "unsupported_tokenizer"),
    "decoder of another type": (change("decoder", to={"type": "WordPiece"}), "unsupported_tokenizer"),
    "decoder without type": (change("decoder", to={}), "tokenizer_invalid"),
    "type is a list": (change("decoder", "type", to=[]), "unsupported_tokenizer"),
    "regular expression": (
        change("pre_tokenizer", to={"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated",
                                    "invert": False}), "unsupported_regex"),
    "chunks of length 0": (change("pre_tokenizer", to={"type": "FixedLength", "length": 0}), "unsupported_tokenizer"),
    "sequence": (change("pre_tokenizer", to={"type": "Sequence", "pretokenizers": []}), "unsupported_tokenizer"),
    "template": (change("post_processor", to={"type": "TemplateProcessing"}), "unsupported_tokenizer"),
    "version 2": (change("version", to="2.0"), "tokenizer_invalid"),
    "truncation is text": (change("truncation", to="long"), "tokenizer_invalid"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_named(tmp_path, pairs, name):
    edit, code = BAD[name]
    content = copy.deepcopy(json.loads(pairs.to_json()))
    edit(content)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    with pytest.raises((ModelFileError, UnsupportedError)) as caught:
        Tokenizer.load(path)
    assert caught.value.code == code
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe{}", b"[" * 100_000, b'{"a":1', b"\0" * 10])
def test_what_is_no_tokenizer_at_all(tmp_path, data):
    (tmp_path / "tokenizer.json").write_bytes(data)
    with pytest.raises(ModelFileError) as caught:
        Tokenizer.load(tmp_path / "tokenizer.json")
    assert caught.value.code == "tokenizer_invalid"


def test_a_missing_file(tmp_path):
    with pytest.raises(NotFoundError) as caught:
        Tokenizer.load(tmp_path / "tokenizer.json")
    assert caught.value.code == "file_not_found"


def test_damaged_files_raise_named_errors_only(plain_bytes, rng):
    text = plain_bytes.to_json()
    for _ in range(300):
        start = int(rng.integers(len(text)))
        damaged = text[:start] + rng.choice(["", "0", '"', "{}", "null", "-1", "[]", ","]) + text[start + 1 :]
        with contextlib.suppress(MinislmError):
            Tokenizer.from_json(damaged).encode("abc")


def test_truncation_of_the_file_is_not_obeyed(pairs):
    content = json.loads(pairs.to_json())
    content["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 5}
    content["padding"] = {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                          "pad_type_id": 0, "pad_token": "!"}  # fmt: skip
    assert Tokenizer.from_json(json.dumps(content)).encode(TEXT) == pairs.encode(TEXT)


def test_stream_holds_back_unfinished_characters(plain_bytes):
    stream = plain_bytes.text_stream()
    pieces = [stream.push(byte) for byte in "a水b👧".encode()]
    assert pieces == ["a", "", "", "水", "b", "", "", "", "👧"]
    assert stream.finish() == ""
    assert [stream.push(byte) for byte in "水".encode()[:2]] == ["", ""]
    assert stream.finish() == "\ufffd"
    assert stream.finish() == ""


def test_long_runs_are_not_quadratic(pairs):
    assert pairs.decode(pairs.encode("a" * 100_000)) == "a" * 100_000
