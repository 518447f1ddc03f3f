"""How the token tables of each kind of tokenizer are made, and which tokenizer.json files are read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from minislm.errors import DataError, UnsupportedError, UsageError, clipped

END_OF_TEXT = "<|endoftext|>"
KINDS = ("bpe", "bytes", "characters")

# What a tokenizer.json may be made of. The library knows more, but stops the whole process at some of it when it is
# malformed, and a regular expression out of a file may take exponential time.
COMPONENTS = {
    "model": ("BPE", "WordLevel"),
    "normalizer": (None,),
    "pre_tokenizer": ("ByteLevel", "Split"),
    "post_processor": (None, "ByteLevel"),
    "decoder": ("ByteLevel", "Fuse"),
}
EVERY_CHARACTER = r"[\s\S]"


def learned_pairs(texts: Iterable[str], vocab_size: int | None) -> tokenizers.Tokenizer:
    """Train byte-level pair encoding.

    Parameters
    ----------
    texts : iterable of str
        Documents.
    vocab_size : int or None
        Wanted number of tokens, at least 257.

    Returns
    -------
    tokenizers.Tokenizer
        The 256 bytes, the merges, and the end of text as the last token.

    Raises
    ------
    UsageError
        Code ``bad_vocab_size``.
    DataError
        Code ``empty_text``.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    smallest = len(alphabet) + 1
    if vocab_size is None or vocab_size < smallest:
        raise UsageError("bad_vocab_size", f"bpe needs a vocab_size of at least {smallest}, not {vocab_size}")
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size - 1, initial_alphabet=alphabet, show_progress=False)
    inner.train_from_iterator(_not_empty(texts), trainer)
    inner.add_special_tokens([END_OF_TEXT])
    return inner


def byte_alphabet() -> tokenizers.Tokenizer:
    """Make the tokenizer whose ids are the bytes of UTF-8, spelled in the letters that stand for bytes since GPT-2.

    Returns
    -------
    tokenizers.Tokenizer
        257 tokens, the last one for the end of text.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in printable)
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    inner = tokenizers.Tokenizer(models.BPE({letter: byte for byte, letter in letters.items()}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([END_OF_TEXT])
    return inner


def character_alphabet(texts: Iterable[str]) -> tokenizers.Tokenizer:
    """Make the tokenizer whose tokens are the distinct characters of the texts.

    Parameters
    ----------
    texts : iterable of str
        Documents.

    Returns
    -------
    tokenizers.Tokenizer
        The characters in order, and no token for the end of text.

    Raises
    ------
    DataError
        Code ``empty_text``.
    """
    characters = sorted(set().union(*_not_empty(texts)))
    inner = tokenizers.Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(characters)}, unk_token=""))
    inner.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(EVERY_CHARACTER), "isolated")
    inner.decoder = decoders.Fuse()
    return inner


def _not_empty(texts: Iterable[str]) -> list[str]:
    texts = list(texts)
    if not any(texts):
        raise DataError("empty_text", "there is no text to make a tokenizer from; give at least one document")
    return texts


def check_components(content: Any, origin: str) -> None:
    """Refuse a tokenizer.json that is made of anything but `COMPONENTS`.

    Parameters
    ----------
    content : object
        Its JSON values; not trusted. Where something is missing, KeyError and TypeError are raised.
    origin : str
        Its name in errors.

    Raises
    ------
    UnsupportedError
        Code ``unsupported_tokenizer`` or ``unsupported_regex``.
    """
    for place, known in COMPONENTS.items():
        component = content[place]
        kind = None if component is None else component["type"]
        if kind not in known:
            names = ", ".join(name or "none" for name in known)
            raise UnsupportedError(
                "unsupported_tokenizer", f"{origin}: minislm reads a {place} of type {names}, not {clipped(kind)}"
            )
    splitting = content["pre_tokenizer"]
    if splitting["type"] == "Split" and splitting["pattern"] != {"Regex": EVERY_CHARACTER}:
        raise UnsupportedError(
            "unsupported_regex",
            f"{origin}: minislm splits text at every character or not at all, not by {clipped(splitting['pattern'])}",
        )
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if content["model"].get(option):
            raise UnsupportedError("unsupported_tokenizer", f"{origin}: minislm does not read a model with {option}")
