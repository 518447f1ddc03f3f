"""Tokenizers: what each kind promises, and the tokenizer.json files that are refused."""

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
def pieces():
    return Tokenizer.train([TEXT], 90, kind="wordpiece", lowercase=True)


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
    assert tokenizer.tokens == dict(enumerate(sorted(set(TEXT + "Zebra"))))
    assert tokenizer.eos_id is None
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert len(tokenizer.encode(TEXT)) == len(TEXT)
    with pytest.raises(DataError, match="text 2, character 2: '!'") as caught:
        tokenizer.encode_batch(["a", "of!"])
    assert caught.value.code == "unencodable_text"


def test_word_pieces_are_berts(pieces):
    assert tuple(pieces.tokens.values())[:5] == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    assert (pieces.pad_id, pieces.unk_id, pieces.cls_id, pieces.sep_id, pieces.mask_id) == (0, 1, 2, 3, 4)
    assert pieces.eos_id is None
    assert pieces.encode("THE Stätement") == pieces.encode("the statement")
    assert pieces.encode("x 水") == [*pieces.encode("x"), pieces.unk_id]
    assert pieces.decode(pieces.encode("over the elements")) == "over the elements"
    cased = Tokenizer.train([TEXT], 90, kind="wordpiece")
    assert cased.encode("The") != cased.encode("the")


def test_encoders_have_their_special_tokens_at_the_end(pairs):
    for kind, size in (("bpe", 300), ("bytes", None)):
        tokenizer = Tokenizer.train([TEXT], size, kind=kind, encoder=True)
        assert tuple(tokenizer.tokens.values())[-5:] == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
        assert tokenizer.sep_id == tokenizer.vocab_size - 2
        assert tokenizer.decode(tokenizer.encode(ODD)) == ODD
    assert tokenizer.encode(ODD) == list(ODD.encode())
    assert (pairs.pad_id, pairs.unk_id, pairs.cls_id, pairs.sep_id, pairs.mask_id) == (None,) * 5


def test_too_little_text_gives_fewer_tokens():
    assert Tokenizer.train(["ab ab"], 1000).vocab_size < 262


def test_training_repeats_in_another_process(pairs, pieces):
    code = (
        "from minislm.text.tokenizer import Tokenizer; "
        f"print(Tokenizer.train([{TEXT!r}], 300).to_json(), end=''); "
        f"print(Tokenizer.train([{TEXT!r}], 90, kind='wordpiece', lowercase=True).to_json(), end='')"
    )
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert again.stdout == pairs.to_json() + pieces.to_json()
    assert again.stderr == ""


def test_text_never_becomes_a_control_token(pairs, plain_bytes, pieces):
    ids = pieces.encode("a [MASK] [SEP] b [PAD]")
    assert not set(ids) & {pieces.mask_id, pieces.sep_id, pieces.pad_id}
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
    encoder = Tokenizer.train([], kind="bytes", encoder=True)
    assert encoder.encode_documents(["a", "b"]).tolist() == [97, encoder.sep_id, 98, encoder.sep_id]
    characters = Tokenizer.train(["ab"], kind="characters")
    assert characters.encode_documents(["ab", "ba"]).tolist() == [0, 1, 1, 0]


def test_save_then_load(tmp_path, pairs, plain_bytes, pieces):
    encoder = Tokenizer.train([], kind="bytes", encoder=True)
    for tokenizer in (pairs, plain_bytes, pieces, encoder, Tokenizer.train(["a\nb"], kind="characters")):
        tokenizer.save(tmp_path / "tokenizer.json")
        back = Tokenizer.load(tmp_path / "tokenizer.json")
        assert back.to_json() == tokenizer.to_json()
        assert back.tokens == tokenizer.tokens
        assert back.special_ids == tokenizer.special_ids
        assert back.encode("a\nb") == tokenizer.encode("a\nb")


@pytest.mark.oracle
def test_the_library_of_others_reads_the_file(tmp_path, pairs):
    transformers = pytest.importorskip("transformers")
    pairs.save(tmp_path / "tokenizer.json")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert theirs("for x in y")["input_ids"] == pairs.encode("for x in y")


PAIRED = [
    ("The statement", None),
    ("The for statement iterates", "over the x"),
    ("x", "y"),
    ("", "x"),
    ("Größer 水\u00a0 is  used", "the\n\nsequence"),
]


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
@pytest.mark.parametrize("max_length", [None, 5, 8])
def test_others_read_pairs_as_we_do(tmp_path, kind, max_length):
    transformers = pytest.importorskip("transformers")
    ours = Tokenizer.train([TEXT], 300, kind=kind, encoder=True, lowercase=kind == "wordpiece")
    ours.save(tmp_path / "tokenizer.json")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    for text, pair in PAIRED:
        ids, types, offsets = ours.encode_pairs([text], None if pair is None else [pair], max_length=max_length)[0]
        cut = {"truncation": "longest_first", "max_length": max_length} if max_length else {}
        found = theirs(text, pair, return_offsets_mapping=True, return_token_type_ids=True, **cut)
        assert len(ids) == len(found["input_ids"])
        if max_length is None:  # libraries disagree on which of two equally long texts loses a token
            assert ids == found["input_ids"]
            assert types == found["token_type_ids"]
            for mine, other, of_pair in zip(offsets, found["offset_mapping"], types, strict=True):
                part = (text, pair)[of_pair]
                assert part[slice(*mine)] == part[slice(*other)].strip()


def test_pairs_stand_between_special_tokens(pieces):
    text, pair = "The statement", "over  x"
    ids, types, offsets = pieces.encode_pairs([text], [pair])[0]
    one, two = pieces.encode(text), pieces.encode(pair)
    assert ids == [pieces.cls_id, *one, pieces.sep_id, *two, pieces.sep_id]
    assert types == [0] * (len(one) + 2) + [1] * (len(two) + 1)
    assert "".join(text[start:end] for start, end in offsets[1 : len(one) + 1]) == "Thestatement"
    assert "".join(pair[start:end] for start, end in offsets[len(one) + 2 : -1]) == "overx"
    assert offsets[0] == offsets[len(one) + 1] == offsets[-1] == (0, 0)
    assert pieces.encode_pairs([text])[0].ids == [pieces.cls_id, *one, pieces.sep_id]
    assert pieces.encode_pairs([]) == []


@pytest.mark.parametrize("max_length", range(3, 12))
def test_the_longer_text_is_cut(max_length):
    tokenizer = Tokenizer.train([], kind="bytes", encoder=True)
    for a, b in (("abcdef", "xy"), ("ab", "uvwxyz"), ("abcd", "wxyz"), ("abcdefgh", None)):
        ids, types, offsets = tokenizer.encode_pairs([a], None if b is None else [b], max_length=max_length)[0]
        whole = len(a) + 2 if b is None else len(a) + len(b) + 3
        assert len(ids) == len(types) == len(offsets) == min(max_length, whole)
        n_1, n_2 = (sum(1 for i, t in zip(ids, types, strict=True) if i < 256 and t == of) for of in (0, 1))
        assert bytes(i for i in ids if i < 256).decode() == a[:n_1] + (b or "")[:n_2]
        assert b is None or n_1 == len(a) or n_2 == len(b) or abs(n_1 - n_2) <= 1


def test_offsets_leave_spaces_out():
    tokenizer = Tokenizer.train(["in Paris"] * 3, 300, encoder=True)
    text = " in  Paris\n"
    parts = [text[start:end] for start, end in tokenizer.encode_pairs([text])[0].offsets]
    assert "".join(parts) == "inParis"
    assert all(part == part.strip() for part in parts)


def test_bad_pairs(pieces, pairs):
    for tokenizer, arguments, code in (
        (pairs, (["a"],), "no_special_tokens"),
        (pieces, (["a"], ["b", "c"]), "bad_option"),
        (pieces, (["a", 5],), "unencodable_text"),
    ):
        with pytest.raises(MinislmError) as caught:
            tokenizer.encode_pairs(*arguments)
        assert caught.value.code == code
    with pytest.raises(UsageError):
        pieces.encode_pairs(["a"], max_length=2)


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
    assert "text 1" in str(caught.value)


def test_bad_training():
    for arguments, code in [
        ({"kind": "pairs"}, "unknown_tokenizer_kind"),
        ({}, "bad_vocab_size"),
        ({"vocab_size": 256}, "bad_vocab_size"),
        ({"vocab_size": 256, "kind": "bytes"}, "bad_vocab_size"),
        ({"vocab_size": 257, "encoder": True}, "bad_vocab_size"),
        ({"vocab_size": 20, "kind": "wordpiece"}, "bad_vocab_size"),
        ({"vocab_size": 300, "lowercase": True}, "contradicting_options"),
        ({"kind": "characters", "encoder": True}, "contradicting_options"),
    ]:
        with pytest.raises((UsageError, UnsupportedError)) as caught:
            Tokenizer.train([TEXT], **arguments)
        assert caught.value.code == code
    for kind in ("bpe", "characters", "wordpiece"):
        for texts in ([], ["", ""]):
            with pytest.raises(DataError) as empty:
                Tokenizer.train(texts, None if kind == "characters" else 300, kind=kind)
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
    "model of another type": (change("model", "type", to="Tree"), "unsupported_tokenizer"),
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
    "normalizer": (change("normalizer", to={"type": "NFKD"}), "unsupported_tokenizer"),
    "normalizer that stops the process": (
        change("normalizer", to={"type": "Precompiled", "precompiled_charsmap": ""}), "tokenizer_invalid"),
    "no decoder": (change("decoder"), "unsupported_tokenizer"),
    "sequence of sequences without end": (
        change("decoder", to={"type": "Sequence", "decoders": [{"type": "Sequence", "decoders": [
            {"type": "Sequence", "decoders": [{"type": "Fuse"}]}]}]}), "unsupported_tokenizer"),
    "regular expression of a normalizer": (
        change("normalizer", to={"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}),
        "unsupported_regex"),
    "one character that becomes a million": (
        change("normalizer", to={"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10**6}),
        "unsupported_tokenizer"),
    "one character that becomes ten, of which each becomes ten": (
        change("normalizer", to={"type": "Sequence", "normalizers": [
            {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}] * 12}), "unsupported_tokenizer"),
    "many parts": (change("normalizer", to={"type": "Sequence", "normalizers": [{"type": "NFC"}] * 33}),
                   "unsupported_tokenizer"),
    "a text put many times into its template": (
        change("post_processor", to={
            "type": "TemplateProcessing", "pair": [], "special_tokens": {},
            "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 17}), "unsupported_tokenizer"),
    "a million before each text": (change("normalizer", to={"type": "Prepend", "prepend": "a" * 10**6}),
                                   "unsupported_tokenizer"),
    "nothing replaced": (change("normalizer", to={"type": "Replace", "pattern": {"String": ""}, "content": "a"}),
                         "unsupported_regex"),
    "charsmap that is no base64": (
        change("normalizer", to={"type": "Precompiled", "precompiled_charsmap": "?"}), "tokenizer_invalid"),
    "decoder that strips at the end, where the library stops the process": (
        change("decoder", to={"type": "Strip", "content": " ", "start": 0, "stop": 1}), "unsupported_tokenizer"),
    "decoder that strips without end": (
        change("decoder", to={"type": "Strip", "content": " ", "start": 10**12, "stop": 0}), "unsupported_tokenizer"),
    "decoder of another type": (change("decoder", to={"type": "CTC"}), "unsupported_tokenizer"),
    "decoder without type": (change("decoder", to={}), "tokenizer_invalid"),
    "type is a list": (change("decoder", "type", to=[]), "unsupported_tokenizer"),
    "regular expression": (
        change("pre_tokenizer", to={"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated",
                                    "invert": False}), "unsupported_regex"),
    "chunks of length 0": (change("pre_tokenizer", to={"type": "FixedLength", "length": 0}), "unsupported_tokenizer"),
    "sequence": (change("pre_tokenizer", to={"type": "Sequence", "pretokenizers": []}), "unsupported_tokenizer"),
    "template without special tokens": (change("post_processor", to={"type": "TemplateProcessing"}),
                                        "tokenizer_invalid"),
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


BAD_PIECES = {
    "template of others": (change("post_processor", "single", to=[]), "unsupported_tokenizer"),
    "template with strange ids": (change("post_processor", "special_tokens", "[CLS]", "ids", to=[10**9]),
                                  "unsupported_tokenizer"),
    "no token for unknown words": (change("model", "unk_token", to="[NONE]"), "unsupported_tokenizer"),
    "unknown words not in the table": (change("model", "vocab", "[UNK]", drop=True), "unsupported_tokenizer"),
    "words without end": (change("model", "max_input_chars_per_word", to=10**9), "unsupported_tokenizer"),
    "suffix": (change("model", "end_of_word_suffix", to="x"), "unsupported_tokenizer"),
    "normalizer that is none": (change("normalizer", "lowercase", to="yes"), "tokenizer_invalid"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_PIECES)
def test_bad_word_piece_file_is_named(pieces, name):
    edit, code = BAD_PIECES[name]
    content = json.loads(pieces.to_json())
    edit(content)
    with pytest.raises((ModelFileError, UnsupportedError)) as caught:
        Tokenizer.from_json(json.dumps(content))
    assert caught.value.code == code


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


@pytest.mark.parametrize("kind", ["bytes", "wordpiece"])
def test_damaged_files_raise_named_errors_only(plain_bytes, pieces, rng, kind):
    text = {"bytes": plain_bytes, "wordpiece": pieces}[kind].to_json()
    codes = set()
    for _ in range(300):
        start = int(rng.integers(len(text)))
        damaged = text[:start] + rng.choice(["", "0", '"', "{}", "null", "-1", "[]", ","]) + text[start + 1 :]
        try:
            Tokenizer.from_json(damaged).encode("abc")
            codes.add(None)
        except MinislmError as error:
            codes.add(error.code)
    assert {None, "tokenizer_invalid", "unsupported_tokenizer"} <= codes


def test_an_interrupt_is_no_failure_of_the_library(plain_bytes):
    class Interrupted:
        def ids(self, texts):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plain_bytes.read(Interrupted(), "abc")


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
