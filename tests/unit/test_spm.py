"""SentencePiece models: golden ids, roles, and files that are damaged in every way."""

import json
import struct
import tracemalloc
from contextlib import nullcontext

import pytest

from minislm.errors import MinislmError, ModelFileError, UnsupportedError
from minislm.text import spm_file
from minislm.text.charsmap import Charsmap
from minislm.text.published import read_tokenizer, tokenizer_files
from minislm.text.spm_file import read_spm
from tests.unit.spm_models import PAIRS, UNIGRAMS, bytes_field, charsmap, model, number_field, varint


def tokenizer(folder, data, name="tokenizer.model", **files):
    (folder / name).write_bytes(data)
    for file, text in files.items():
        (folder / file.replace("_json", ".json")).write_text(text)
    return read_tokenizer(folder)


def spelled(made, text):
    return [made.tokens[number] for number in made.encode(text)]


# Checked against the sentencepiece library in tests/oracles/test_published_text.py.
UNIGRAM_GOLDEN = {
    "the world": ["▁the", "▁wor", "ld"],
    "  the\t \tworld ": ["▁the", "▁wor", "ld"],
    "ﬁ": ["▁", "fi"],
    "Ae\u0301e\u0301\u0301é": ["▁", "a", "e", "<unk>", "e"],
    "": [],
    " \u200b ": [],
    "水水the": ["▁", "<unk>", "t", "he"],
    "</s><pad> never": ["▁", "<unk>", "s", "<unk>", "a", "d", "<unk>", "▁", "n", "e", "<unk>", "e", "r"],
    "a<sep> b": ["▁", "a", "<sep>", "▁", "b"],
    "▁hello▁": ["▁", "▁", "he", "l", "lo"],
}
PAIRS_GOLDEN = {
    "the world": ["▁the", "▁wor", "l", "d"],
    "hello": ["▁", "he", "llo"],
    "  hello ": ["▁▁", "▁", "he", "llo", "▁"],
    "é</s>": ["▁", "<0xC3>", "<0xA9>", "<0x3C>", "<0x2F>", "s", "<0x3E>"],
    "<0x41>\n": ["▁", *(f"<0x{byte:02X}>" for byte in b"<0x41>\n")],
    "": [],
    " ": ["▁▁"],
}


@pytest.mark.parametrize("text", UNIGRAM_GOLDEN)
def test_golden_unigrams(tmp_path, text):
    assert spelled(tokenizer(tmp_path, UNIGRAMS, "spiece.model"), text) == UNIGRAM_GOLDEN[text]


@pytest.mark.parametrize("text", PAIRS_GOLDEN)
def test_golden_pairs(tmp_path, text):
    made = tokenizer(tmp_path, PAIRS)
    assert spelled(made, text) == PAIRS_GOLDEN[text]
    assert made.decode(made.encode(text)) == text


def test_t5_ends_texts_and_has_sentinels(tmp_path):
    made = tokenizer(tmp_path, UNIGRAMS, "spiece.model", tokenizer_config_json='{"extra_ids": 3}')
    n_pieces = len(read_spm(UNIGRAMS, "spiece.model").pieces)
    assert made.vocab_size == n_pieces + 3
    assert made.special_ids["<extra_id_0>"] == n_pieces + 2
    assert (made.pad_id, made.eos_id, made.unk_id, made.bos_id) == (0, 1, 2, None)
    assert made.encode_prompts(["the"]) == [[*made.encode("the"), 1]]
    assert made.decode([*made.encode("hello the world"), 1, 0, made.special_ids["<extra_id_1>"]]) == "hello the world"
    assert not {0, 1, n_pieces + 2} & set(made.encode("a </s> <pad> <extra_id_0>"))


def test_llama_begins_texts_unless_told_otherwise(tmp_path):
    made = tokenizer(tmp_path, PAIRS)
    assert (made.bos_id, made.eos_id, made.unk_id, made.pad_id) == (1, 2, 0, None)
    assert made.encode_prompts(["the"]) == [[1, *made.encode("the")]]
    config = '{"add_bos_token": false, "add_eos_token": true, "pad_token": "<unk>", "model_max_length": 77}'
    made = tokenizer(tmp_path, PAIRS, tokenizer_config_json=config)
    assert made.encode_prompts(["the"]) == [[*made.encode("the"), 2]]
    assert (made.pad_id, made.roles.max_length) == (0, 77)


def test_marian_takes_a_language_only_from_the_start_of_a_text(tmp_path):
    pieces = [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3)]
    pieces += [(text, -3.0 if text in "<>▁" else -1.0, 1) for text in (*"abfrz<>▁", "▁a")]
    vocab = {text: n for n, text in enumerate(["</s>", "<unk>", *"abfrz<>▁", "▁a", ">>fra<<", "<pad>"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    for name in ("source.spm", "target.spm"):
        (tmp_path / name).write_bytes(model(pieces))
    made = read_tokenizer(tmp_path)
    code, unknown = vocab[">>fra<<"], vocab["<unk>"]
    assert made.encode(">>fra<< a") == [code, vocab["▁a"]]
    assert made.encode(">>zar<<a") == [unknown, vocab["▁a"]]
    spelled = [vocab[letter] for letter in "▁>>fra<<"]
    assert made.encode(" >>fra<<") == spelled
    assert made.encode("a>>fra<<") == [vocab["▁a"], *spelled[1:]]
    assert made.encode(">>fra<<>>fra<<") == [code, *spelled]
    assert made.decode([code, vocab["▁a"]]) == ">>fra<< a"


@pytest.mark.parametrize(("data", "name"), [(UNIGRAMS, "spiece.model"), (PAIRS, "tokenizer.model")])
def test_what_is_written_is_read_back(tmp_path, data, name):
    made = tokenizer(tmp_path, data, name)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file, text in tokenizer_files(made).items():
        (copy / file).write_text(text)
    back = read_tokenizer(copy)
    assert back.roles == made.roles
    assert (back.tokens, back.special_ids, back.around) == (made.tokens, made.special_ids, made.around)
    texts = list(UNIGRAM_GOLDEN | PAIRS_GOLDEN)
    assert back.encode_batch(texts) == made.encode_batch(texts)


ENOUGH = [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3), ("a", -1.0, 1)]
BAD = {
    "nothing": b"",
    "text": b"this is no model at all",
    "field without a number": b"\x00\x01",
    "group": varint(1 << 3 | 3),
    "number without end": number_field(2, 0)[:-1] + b"\xff" * 12,
    "length past the end": varint(1 << 3 | 2) + varint(2**40) + b"abc",
    "length of 2^64 - 1": varint(1 << 3 | 2) + varint(2**64 - 1) + b"abc",
    "piece that is a number": number_field(1, 5) + model(ENOUGH),
    "score that is a number": bytes_field(1, bytes_field(1, b"x") + number_field(2, 1)) + model(ENOUGH),
    "score of three bytes": bytes_field(1, bytes_field(1, b"x") + bytes_field(2, b"abc")) + model(ENOUGH),
    "no unknown piece": model(ENOUGH[1:]),
    "two unknown pieces": model([*ENOUGH, ("b", 0, 2)]),
    "piece twice": model([*ENOUGH, ("a", 0, 1)]),
    "piece without text": model([*ENOUGH, ("", 0, 1)]),
    "piece of a strange kind": model([*ENOUGH, ("b", 0, 9)]),
    "long piece": model([*ENOUGH, ("b" * 2000, 0, 1)]),
    "piece in no UTF-8": bytes_field(1, bytes_field(1, b"\xff")) + model(ENOUGH),
    "score that is not a number": model([*ENOUGH, ("b", float("nan"), 1)]),
    "infinite score": model([*ENOUGH, ("b", float("-inf"), 1)]),
    "bytes without pieces": model(ENOUGH, kind=2, byte_fallback=True),
    "charsmap of one byte": model(ENOUGH, charsmap=b"x"),
    "charsmap larger than itself": model(ENOUGH, charsmap=struct.pack("<I", 4000) + bytes(100)),
}


@pytest.mark.parametrize("name", BAD)
def test_damaged_model_is_named(tmp_path, name):
    with pytest.raises(ModelFileError) as caught:
        tokenizer(tmp_path, BAD[name])
    assert caught.value.code == "tokenizer_invalid"
    assert "tokenizer.model" in str(caught.value)


def test_more_pieces_than_any_model_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(spm_file, "MOST_PIECES", len(ENOUGH))
    assert tokenizer(tmp_path, model(ENOUGH)).vocab_size == len(ENOUGH)
    with pytest.raises(ModelFileError, match="more than 4 pieces"):
        tokenizer(tmp_path, model([*ENOUGH, ("b", 0, 1)]))


@pytest.mark.parametrize(
    "data",
    [
        model(ENOUGH, kind=3),
        model(ENOUGH, kind=4),
        model(ENOUGH) + bytes_field(2, number_field(24, 1)),
        model(ENOUGH) + bytes_field(3, number_field(5, 0)),
        model(ENOUGH) + bytes_field(5, bytes_field(2, b"charsmap")),
        model([*ENOUGH, *((f"<0x{byte:02X}>", 0, 6) for byte in range(256))], byte_fallback=True),
    ],
)
def test_other_models_are_refused(tmp_path, data):
    with pytest.raises(UnsupportedError) as caught:
        tokenizer(tmp_path, data)
    assert caught.value.code == "unsupported_tokenizer"


def test_unknown_fields_are_passed_over(tmp_path):
    more = number_field(7, 2**60) + bytes_field(4, b"self test") + varint(90 << 3 | 1) + bytes(8)
    assert spelled(tokenizer(tmp_path, PAIRS + more), "the") == ["▁the"]


@pytest.mark.parametrize("data", [UNIGRAMS, PAIRS], ids=["unigrams", "pairs"])
def test_truncations_and_flipped_bits_raise_named_errors_only(tmp_path, data, rng):
    whole = len(data)
    codes = set()
    for _ in range(300):
        damaged = bytearray(data)
        if rng.random() < 0.3:
            damaged = damaged[: int(rng.integers(whole))]
        for _ in range(int(rng.integers(1, 4))):
            if damaged:
                # half of the flips before the charsmap's bulk, which a few bits would never reach
                place = int(rng.integers(len(damaged))) if rng.random() < 0.5 else int(rng.integers(min(600, whole)))
                damaged[min(place, len(damaged) - 1)] ^= 1 << int(rng.integers(8))
        try:
            made = tokenizer(tmp_path, bytes(damaged))
            made.decode(made.encode("ﬁne the wörld e\u0301\t</s>"))
            codes.add(None)
        except MinislmError as error:
            codes.add(error.code)
    assert {None, "tokenizer_invalid"} <= codes


SAME_PIECES = bytes_field(1, bytes_field(1, b"a")) * 5_000


@pytest.mark.parametrize(
    ("data", "end"),
    [(UNIGRAMS, nullcontext()), (PAIRS, nullcontext()), (SAME_PIECES, pytest.raises(ModelFileError, match="twice"))],
    ids=["unigrams", "pairs", "same pieces"],
)
def test_reading_takes_no_more_memory_than_64_files(data, end):
    tracemalloc.start()
    try:
        with end:
            read_spm(data, "tokenizer.model")
        assert tracemalloc.get_traced_memory()[1] < 64 * len(data) + 2**20
    finally:
        tracemalloc.stop()


def test_a_charsmap_replaces_the_longest_strings():
    table = {"a": "1", "ab": "22", "abc": "", "é": "e", "水": "water", "👩": "?"}
    read = Charsmap.read(charsmap(table), "test")
    assert read.apply("abcabxabéa水👩\x00abd") == "22x22e1water?\x0022d".replace("22x", "22x", 1)
    assert read.apply("") == ""
    for key, value in table.items():
        assert read.apply(key) == value


def test_charsmaps_that_lead_astray_are_refused():
    good = charsmap({"a": "é"})
    n_bytes = struct.unpack_from("<I", good)[0]
    units = list(struct.unpack_from(f"<{n_bytes // 4}I", good, 4))

    def with_unit(place, unit, texts=b"\xc3\xa9\x00"):
        changed = [*units[:place], unit, *units[place + 1 :]]
        return struct.pack("<I", n_bytes) + struct.pack(f"<{len(units)}I", *changed) + texts

    end = 256 ^ ord("a")  # the unit that the letter leads to
    assert Charsmap.read(with_unit(0, units[0]), "test").apply("a") == "é"
    for damaged in (
        with_unit(0, 2**31 - 1),
        with_unit(end, units[end] | 0x1FFFFF << 10),
        with_unit(512, 1 | 1 << 31),  # inside a character
        with_unit(512, 3 | 1 << 31),  # behind the text
        with_unit(0, units[0], b"\xff\x00"),
    ):
        with pytest.raises(ModelFileError, match="charsmap"):
            Charsmap.read(damaged, "test")


def test_ways_that_meet_in_a_charsmap_cost_nothing():
    """A trie whose every letter leads back to its beginning has keys without end."""
    units = [256 << 10] + [0] * 511
    for letter in range(1, 256):
        units[256 ^ letter] = letter | (256 ^ letter ^ 256) << 10
    data = struct.pack("<I", 4 * len(units)) + struct.pack(f"<{len(units)}I", *units)
    assert Charsmap.read(data, "test").apply("any text" * 100) == "any text" * 100
