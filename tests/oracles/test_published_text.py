"""Tokenizers of published folders equal those of transformers and sentencepiece, token by token."""

import io
import json

import pytest
from tokenizers import Tokenizer as Library

from minislm.text.published import read_tokenizer, tokenizer_files
from tests.unit.published_tokenizers import FAMILIES, SAMPLE, any_texts, family
from tests.unit.spm_models import PAIRS, UNIGRAMS

pytestmark = pytest.mark.oracle
transformers = pytest.importorskip("transformers")
sentencepiece = pytest.importorskip("sentencepiece")

# Few texts in each run of the oracles, many when slow tests are asked for.
AMOUNTS = [pytest.param(300, id="few"), pytest.param(10_000, id="many", marks=pytest.mark.slow)]
LINES = [line for text in SAMPLE for line in text.split("\n") if line]

SPM = {
    "LLaMA": {"model_type": "bpe", "byte_fallback": True, "vocab_size": 400, "normalization_rule_name": "identity",
              "remove_extra_whitespaces": False, "split_digits": True, "allow_whitespace_only_pieces": True},
    "Gemma": {"model_type": "bpe", "byte_fallback": True, "vocab_size": 420, "normalization_rule_name": "identity",
              "remove_extra_whitespaces": False, "add_dummy_prefix": False, "pad_id": 0, "eos_id": 1, "bos_id": 2,
              "unk_id": 3, "user_defined_symbols": ["<mask>", "\n\n", "\t\t", "<b>"]},
    "T5": {"vocab_size": 200, "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    "pairs, NFKC": {"model_type": "bpe", "vocab_size": 200, "user_defined_symbols": ["<sep>"]},
    "unigrams, NFKC, small letters": {"vocab_size": 150, "normalization_rule_name": "nfkc_cf"},
    "unigrams with symbols": {"vocab_size": 200, "user_defined_symbols": ["<sep>"]},
}  # fmt: skip


def trained(options, lines=LINES):
    out = io.BytesIO()
    settings = {"model_type": "unigram", "minloglevel": 2, **options}
    if settings["model_type"] == "unigram":
        settings["hard_vocab_limit"] = False
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=out, **settings)
    return out.getvalue()


def write(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def check_sentence_pieces(ours, theirs, texts, rng):
    for text, ids in zip(texts, ours.encode_batch(texts), strict=True):
        assert ids == theirs.encode(text), ascii(text)
    kinds = (theirs.is_control, theirs.is_unknown, theirs.is_byte)
    silent = {number for number in range(theirs.vocab_size()) if any(kind(number) for kind in kinds)}
    for text in texts[:1000]:
        ids = [number for number in theirs.encode(text) if not theirs.is_unknown(number)]
        assert ours.decode(ids) == theirs.decode(ids)
    for _ in range(300):
        ids = [int(number) for number in rng.integers(0, theirs.vocab_size(), 8) if int(number) not in silent]
        assert ours.decode(ids) == theirs.decode(ids)


@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("name", SPM)
def test_sentence_pieces(tmp_path, name, amount, rng):
    data = trained(SPM[name])
    file = "spiece.model" if name == "T5" else "tokenizer.model"
    ours = read_tokenizer(write(tmp_path, **{file: data}))
    theirs = sentencepiece.SentencePieceProcessor(model_proto=data)
    check_sentence_pieces(ours, theirs, any_texts(rng, amount), rng)


@pytest.mark.parametrize("data", [UNIGRAMS, PAIRS], ids=["unigrams", "pairs"])
def test_models_written_by_hand(tmp_path, data, rng):
    ours = read_tokenizer(write(tmp_path, **{"tokenizer.model": data}))
    theirs = sentencepiece.SentencePieceProcessor(model_proto=data)
    check_sentence_pieces(ours, theirs, any_texts(rng, 2000), rng)


@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("name", FAMILIES)
def test_families(tmp_path, name, amount, rng):
    ours = read_tokenizer(write(tmp_path, **{"tokenizer.json": family(name)}))
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    texts = any_texts(rng, amount)
    if name == "T5":  # there others find special tokens in text
        texts = [text for text in texts if not any(token in text for token in ours.special_ids)]
    for text, ids in zip(texts, ours.encode_prompts(texts), strict=True):
        assert ids == theirs(text, split_special_tokens=True)["input_ids"], ascii(text)
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


FLAGS = [
    {},
    {"add_bos_token": True},
    {"add_bos_token": False},
    {"add_eos_token": True},
    {"add_bos_token": True, "add_eos_token": True},
]


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("name", ["LLaMA 2", "Qwen", "Llama 3"])
def test_what_stands_around_a_text(tmp_path, name, flags):
    tokens = {"LLaMA 2": ("<s>", "</s>"), "Qwen": (None, "<|im_end|>"), "Llama 3": ("<|begin_of_text|>", "<|eot_id|>")}
    bos, eos = tokens[name]
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": eos, **flags}
    files = {"tokenizer.json": family(name), "tokenizer_config.json": json.dumps(config)}
    ours = read_tokenizer(write(tmp_path, **files))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert ours.encode_prompts(["The statement", ""]) == [theirs(text)["input_ids"] for text in ("The statement", "")]
    assert (ours.bos_id, ours.eos_id) == (theirs.bos_token_id, theirs.eos_token_id)
    copy = write(tmp_path / "copy", **tokenizer_files(ours))
    assert (
        transformers.AutoTokenizer.from_pretrained(copy)("The statement")["input_ids"]
        == theirs("The statement")["input_ids"]
    )


@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("lowercase", [True, False])
def test_word_lists(tmp_path, lowercase, amount, rng):
    vocab = Library.from_str(family("BERT uncased" if lowercase else "BERT cased")).get_vocab()
    words = "".join(f"{word}\n" for word in sorted(vocab, key=vocab.__getitem__))
    config = {"do_lower_case": lowercase, "model_max_length": 512, "tokenizer_class": "BertTokenizer"}
    ours = read_tokenizer(write(tmp_path, **{"vocab.txt": words, "tokenizer_config.json": json.dumps(config)}))
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path)
    texts = any_texts(rng, amount)
    for text, ids in zip(texts, ours.encode_prompts(texts), strict=True):
        assert ids == theirs(text, split_special_tokens=True)["input_ids"], ascii(text)
    for text, pair in zip(texts[::2], texts[1::2], strict=True):
        ids, types, _ = ours.encode_pairs([text], [pair])[0]
        found = theirs(text, pair, split_special_tokens=True)
        assert (ids, types) == (found["input_ids"], found["token_type_ids"])


@pytest.mark.parametrize("amount", AMOUNTS)
def test_vocabulary_with_merges(tmp_path, amount, rng):
    model = json.loads(family("GPT-2"))
    vocab = {**model["model"]["vocab"], "<|endoftext|>": len(model["model"]["vocab"])}
    merges = "#version: 0.2\n" + "".join(f"{' '.join(pair)}\n" for pair in model["model"]["merges"])
    files = {"vocab.json": json.dumps(vocab), "merges.txt": merges, "tokenizer_config.json": "{}"}
    ours = read_tokenizer(write(tmp_path, **files))
    theirs = transformers.GPT2Tokenizer.from_pretrained(tmp_path)
    texts = any_texts(rng, amount)
    for text, ids in zip(texts, ours.encode_batch(texts), strict=True):
        assert ids == theirs(text, split_special_tokens=True)["input_ids"], ascii(text)
        assert ours.decode(ids) == theirs.decode(ids)
    assert ours.eos_id == theirs.eos_token_id


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("dropped", [0, 20], ids=["whole", "pieces without numbers"])
def test_marian(tmp_path, amount, dropped, rng):
    lines = [line.upper() for line in LINES] + ["Größe und Maß 水 zu Hause"] * 5
    source, target = trained({"vocab_size": 120}), trained({"vocab_size": 120}, lines)
    spelled = set()
    for data in (source, target):
        pieces = sentencepiece.SentencePieceProcessor(model_proto=data)
        spelled |= {pieces.id_to_piece(i) for i in range(3, pieces.vocab_size())}
    order = sorted(spelled)
    order = [order[int(i)] for i in rng.permutation(len(order))][dropped:]
    names = ["</s>", "<unk>", *order[:40], ">>fra<<", ">>zlm_Latn<<", *order[40:], "<pad>"]
    vocab = json.dumps({name: number for number, name in enumerate(names)})
    folder = write(tmp_path, **{"source.spm": source, "target.spm": target, "vocab.json": vocab})
    ours, theirs = read_tokenizer(folder), transformers.MarianTokenizer.from_pretrained(folder)
    texts = any_texts(rng, amount)
    texts = [text for text in texts if not any(token in text for token in ("</s>", "<unk>", "<pad>", ">>"))]
    codes = [
        ">>fra<<",
        ">>zlm_Latn<< ",
        ">>zzz<<",
        ">><<",
        " >>fra<< ",
        "a >>fra<< b",
        ">>fra<<>>zzz<<",
        ">>fra",
        ">>fra<< ",
    ]
    texts += [f"{codes[number % len(codes)]}{text}" for number, text in enumerate(texts[:200])]
    for text, ids in zip(texts, ours.encode_prompts(texts), strict=True):
        assert ids == theirs(text)["input_ids"], ascii(text)
    for text, ids in zip(texts[:-200], ours.target.encode_prompts(texts[:-200]), strict=True):
        assert ids == theirs(text_target=text)["input_ids"], ascii(text)
        assert ours.decode(ids) == ours.target.decode(ids)
        assert ours.decode(ids).rstrip() == theirs.decode(ids, skip_special_tokens=True).rstrip()
    assert (ours.vocab_size, ours.eos_id, ours.unk_id, ours.pad_id) == (len(names), 0, 1, len(names) - 1)
    back = read_tokenizer(write(tmp_path / "copy", **tokenizer_files(ours)))
    assert back.roles == ours.roles
    assert back.encode_batch(texts) == ours.encode_batch(texts)
    assert back.target.encode_batch(texts) == ours.target.encode_batch(texts)
    assert back.tokens == ours.tokens
