"""How the token tables of each kind of tokenizer are made."""

from __future__ import annotations

from collections.abc import Iterable

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from minislm.errors import DataError, UsageError
from minislm.text.patterns import EVERY_CHARACTER
from minislm.text.tokenizer_file import CLS, ENCODER_TOKENS, END_OF_TEXT, SEP, UNKNOWN

KINDS = ("bpe", "bytes", "characters", "wordpiece")


def learned_pairs(texts: Iterable[str], vocab_size: int | None, special: tuple[str, ...]) -> tokenizers.Tokenizer:
    """Train byte-level pair encoding.

    Parameters
    ----------
    texts : iterable of str
        Documents.
    vocab_size : int or None
        Wanted number of tokens, at least 256 and the special ones.
    special : tuple of str
        The last tokens.

    Returns
    -------
    tokenizers.Tokenizer
        The 256 bytes, the merges, and the special tokens.

    Raises
    ------
    UsageError
        Code ``bad_vocab_size``.
    DataError
        Code ``empty_text``.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    size = _checked_size("bpe", vocab_size, len(alphabet) + len(special)) - len(special)
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    inner.train_from_iterator(_not_empty(texts), trainer)
    return _with_special(inner, special)


def byte_alphabet(special: tuple[str, ...]) -> tokenizers.Tokenizer:
    """Make the tokenizer whose ids are the bytes of UTF-8, spelled in the letters that stand for bytes since GPT-2.

    Parameters
    ----------
    special : tuple of str
        The last tokens.

    Returns
    -------
    tokenizers.Tokenizer
        The 256 bytes and the special tokens.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in printable)
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    inner = tokenizers.Tokenizer(models.BPE({letter: byte for byte, letter in letters.items()}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    return _with_special(inner, special)


def character_alphabet(texts: Iterable[str]) -> tokenizers.Tokenizer:
    """Make the tokenizer whose tokens are the distinct characters of the texts.

    Parameters
    ----------
    texts : iterable of str
        Documents.

    Returns
    -------
    tokenizers.Tokenizer
        The characters in order, and no special token.

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


def word_pieces(texts: Iterable[str], vocab_size: int | None, *, lowercase: bool) -> tokenizers.Tokenizer:
    """Train WordPiece as BERT has it: words cut at spaces and punctuation, then into the longest known pieces.

    Parameters
    ----------
    texts : iterable of str
        Documents.
    vocab_size : int or None
        Wanted number of tokens; there must be room for all characters.
    lowercase : bool
        Whether letters become small ones without accents.

    Returns
    -------
    tokenizers.Tokenizer
        `ENCODER_TOKENS`, the characters of the texts, and pieces.

    Raises
    ------
    UsageError
        Code ``bad_vocab_size``.
    DataError
        Code ``empty_text``.
    """
    texts = _not_empty(texts)
    normalizer, splitter = normalizers.BertNormalizer(lowercase=lowercase), pre_tokenizers.BertPreTokenizer()
    words = {word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    # Letters inside words would be numbered in the order of a hash table that changes with every process.
    inside = sorted({f"##{letter}" for word in words for letter in word[1:]})
    special = [*ENCODER_TOKENS, *inside]
    size = _checked_size("wordpiece", vocab_size, len(special) + len({word[0] for word in words}))
    learner = tokenizers.Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    learner.normalizer, learner.pre_tokenizer = normalizer, splitter
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    learner.train_from_iterator(texts, trainer)
    vocab = learner.get_vocab(with_added_tokens=False)
    inner = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token=UNKNOWN))
    inner.normalizer, inner.pre_tokenizer, inner.decoder = normalizer, splitter, decoders.WordPiece()
    return _with_special(inner, ENCODER_TOKENS)


def needed_tokens(encoder: bool) -> tuple[str, ...]:
    """Return the special tokens that a kind of model needs.

    Parameters
    ----------
    encoder : bool
        Whether it reads texts whole, and has `ENCODER_TOKENS`; a model that writes has the end of text.

    Returns
    -------
    tuple of str
        As text.
    """
    return ENCODER_TOKENS if encoder else (END_OF_TEXT,)


def _with_special(inner: tokenizers.Tokenizer, special: tuple[str, ...]) -> tokenizers.Tokenizer:
    """Add special tokens and, for an encoder, what tells other readers of the file how it reads texts."""
    inner.add_special_tokens([AddedToken(token, special=True) for token in special])
    if special == ENCODER_TOKENS:
        inner.post_processor = processors.TemplateProcessing(
            single=f"{CLS} $A {SEP}",
            pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
            special_tokens=[(token, inner.token_to_id(token)) for token in (CLS, SEP)],
        )
    return inner


def _checked_size(kind: str, vocab_size: int | None, smallest: int) -> int:
    if vocab_size is None or vocab_size < smallest:
        raise UsageError("bad_vocab_size", f"{kind} needs a vocab_size of at least {smallest}, not {vocab_size}")
    return vocab_size


def _not_empty(texts: Iterable[str]) -> list[str]:
    texts = list(texts)
    if not any(texts):
        raise DataError("empty_text", "there is no text to make a tokenizer from; give at least one document")
    return texts
