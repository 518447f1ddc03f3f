"""Small tokenizers, each with the exact pipeline of a published family, and texts of every kind to try them on."""

import json
from functools import cache

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from minislm.text.patterns import PATTERNS

SAMPLE = [
    "The for statement is used to iterate over the elements of a sequence: 12345 times, isn't it?\n\n",
    "    def größer(x):\n        return x * 3.14159  # naïve cafe\u0301 水 👩‍👩‍👧\r\n",
    "THE QUICK brown fox's jumped; they'll see <b>7,000,000</b>\tlazy dogs   and   more\n",
] * 6

# Texts are made of these and of characters from all planes.
PARTS = (
    "the", "The statement", "x", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "'s", "'LL", "n't", "1", "2024",
    "３", "½", ".", "...", "!?", "'", "’", "-", "_", "größer", "naïve", "e\u0301", "\u0301", "水", "한국어",
    "\u1112\u1161\u11ab", "नमस्ते", "👩‍👩‍👧", "🇩🇪", "❤️", "\u00a0", "\u200b", "\u200d", "\ufeff", "\u2028", "\u3000",
    "\x00", "\x01", "\x7f", "\x85", "\ufffd", "▁", "Ġ", "##ing", "<s>", "</s>", "<unk>", "<0x41>", "[CLS]", "[MASK]",
    "<|endoftext|>", "<|im_start|>", "ﬁ", "①", "Å", "İ", "ß", "ẞ", "\U0001d40b", "\U0010fffd", "\ue000", "\ufdd0",
    "def f(x):\n    return x", "https://a.b/c?d=e&f", '{"a": [1, 2]}',
)  # fmt: skip


def any_texts(rng, n):
    """Make texts: mostly the parts above, some characters of any plane, in runs of any kind."""
    texts = ["", " ", "\n", "\u0301"]
    while len(texts) < n:
        parts = []
        for _ in range(int(rng.integers(1, 12))):
            if rng.random() < 0.75:
                parts.append(PARTS[int(rng.integers(len(PARTS)))])
            else:
                number = int(rng.integers(0x110000 if rng.random() < 0.5 else 0x3000))
                parts.append("?" if 0xD800 <= number < 0xE000 else chr(number))
        texts.append("".join(parts))
    return texts[:n]


def byte_level(*, before=(), regex=True):
    """Return GPT-2's pre-tokenizer, with others before it."""
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    return pre_tokenizers.Sequence([*before, last]) if before else last


def split(name, behavior="isolated", invert=False):
    return pre_tokenizers.Split(tokenizers.Regex(PATTERNS[name]), behavior, invert)


def byte_pairs(pre_tokenizer, special, *, plain=(), normalizer=None, post=None, ignore_merges=False):
    """Train byte-level pairs; special tokens follow them."""
    inner = tokenizers.Tokenizer(models.BPE(ignore_merges=ignore_merges))
    inner.normalizer, inner.pre_tokenizer, inner.decoder = normalizer, pre_tokenizer, decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        SAMPLE, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    inner.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    inner.add_tokens([AddedToken(token, normalized=False) for token in plain])
    inner.post_processor = post and post(inner)
    return inner


def around(before=(), after=(), byte_level=False):
    """Make a post-processor that puts special tokens around a text."""

    def make(inner):
        tokens = [(token, inner.token_to_id(token)) for token in (*before, *after)]
        first, second = (" ".join((*before, f"${name}", *after)) for name in "AB")
        template = processors.TemplateProcessing(single=first, pair=f"{first} {second}", special_tokens=tokens)
        return processors.Sequence([processors.ByteLevel(), template]) if byte_level else template

    return make


def spaced_pairs(
    *, normalizer=None, pre_tokenizer=None, special=("<unk>", "<s>", "</s>"), strip=True, plain=(), bos="<s>"
):
    """Train pairs on text with a sign for spaces, and bytes for what is unknown, as LLaMA and Gemma have them."""
    learner = tokenizers.Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    learner.train_from_iterator(SAMPLE, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    learned = json.loads(learner.to_str())["model"]
    pieces = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
    words = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    vocab = {token: number for number, token in enumerate(words)}
    merges = [tuple(merge) for merge in learned["merges"]]
    inner = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    inner.normalizer, inner.pre_tokenizer = normalizer, pre_tokenizer
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    inner.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strip else steps)
    inner.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    inner.add_tokens([AddedToken(token, normalized=False) for token in plain])
    inner.post_processor = around((bos,))(inner)
    return inner


def word_pieces(*, lowercase):
    inner = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = (
        normalizers.BertNormalizer(lowercase=lowercase),
        pre_tokenizers.BertPreTokenizer(),
    )
    inner.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner.train_from_iterator(
        SAMPLE, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    )
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return inner


def unigram(*, normalizer, pre_tokenizer):
    """Train a unigram model with T5's special tokens and sentinels."""
    special = ["<pad>", "</s>", "<unk>"]
    sentinels = [f"<extra_id_{i}>" for i in range(9, -1, -1)]
    inner = tokenizers.Tokenizer(models.Unigram())
    inner.normalizer, inner.pre_tokenizer, inner.decoder = normalizer, pre_tokenizer, decoders.Metaspace()
    inner.train_from_iterator(
        SAMPLE,
        trainers.UnigramTrainer(vocab_size=150, special_tokens=special, unk_token="<unk>", show_progress=False),
    )
    inner.add_special_tokens([AddedToken(token, normalized=False) for token in sentinels])
    inner.post_processor = around((), ("</s>",))(inner)
    return inner


def digits():
    return byte_level(before=[pre_tokenizers.Digits(individual_digits=True)])


def llama_normalizer():
    return normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LLAMA_3 = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
PHI_3 = ("<|endoftext|>", "<|assistant|>", "<|end|>", "<|user|>")
FAMILIES = {
    "BERT uncased": lambda: word_pieces(lowercase=True),
    "BERT cased": lambda: word_pieces(lowercase=False),
    "GPT-2": lambda: byte_pairs(byte_level(), CHATML[:1], post=lambda _: processors.ByteLevel(trim_offsets=False)),
    "Phi-2": lambda: byte_pairs(byte_level(), CHATML[:1], plain=[" " * n for n in range(12, 1, -1)] + ["\t\t"]),
    "LLaMA 2": lambda: spaced_pairs(normalizer=llama_normalizer()),
    "LLaMA 2, newer": lambda: spaced_pairs(pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="first", split=False)),
    "Phi-3": lambda: phi_3(),
    "Llama 3": lambda: byte_pairs(
        byte_level(before=[split("Llama 3, OLMo 2, Phi-4, SmolLM3")], regex=False), LLAMA_3,
        post=around(LLAMA_3[:1], byte_level=True), ignore_merges=True),
    "Qwen": lambda: byte_pairs(
        byte_level(before=[split("Qwen2, Qwen3")], regex=False), CHATML, plain=["<tool_call>", "<think>"],
        normalizer=normalizers.NFC(), post=lambda _: processors.ByteLevel(trim_offsets=False)),
    "SmolLM": lambda: byte_pairs(digits(), CHATML),
    "Granite": lambda: byte_pairs(digits(), ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>")),
    "Phi-4": lambda: byte_pairs(
        byte_level(before=[split("Llama 3, OLMo 2, Phi-4, SmolLM3", "removed", True)], regex=False), CHATML),
    "cl100k": lambda: byte_pairs(byte_level(before=[split("cl100k")], regex=False), CHATML),
    "o200k": lambda: byte_pairs(byte_level(before=[split("o200k, Phi-4-mini")], regex=False), CHATML),
    "Mistral NeMo": lambda: byte_pairs(byte_level(before=[split("Mistral NeMo")], regex=False), CHATML),
    "Qwen3.5": lambda: byte_pairs(byte_level(before=[split("Qwen3.5")], regex=False), CHATML),
    "Gemma": lambda: spaced_pairs(
        normalizer=normalizers.Replace(" ", "▁"), pre_tokenizer=pre_tokenizers.Split(" ", "merged_with_previous"),
        special=("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"), strip=False,
        plain=["\n\n", "\n\n\n", "▁▁", "▁▁▁"], bos="<bos>"),
    "T5": lambda: unigram(
        normalizer=normalizers.NFKC(),
        pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])),
}  # fmt: skip


def phi_3():
    inner = spaced_pairs(normalizer=llama_normalizer())
    inner.add_special_tokens([AddedToken(token, normalized=False, rstrip=True) for token in PHI_3])
    return inner


@cache
def family(name):
    """Return a family's tokenizer.json."""
    return FAMILIES[name]().to_str()
