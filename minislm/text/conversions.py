"""Tokenizers out of older files: vocab.txt, vocab.json with merges.txt, and SentencePiece models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from minislm.errors import clipped
from minislm.text.components import MOST_STRIPPED, invalid, unsupported
from minislm.text.patterns import PATTERNS
from minislm.text.spm_file import BPE, CONTROL, NORMAL, UNIGRAM, UNKNOWN_PIECE, UNUSED, USER_DEFINED, Piece, SpmModel
from minislm.text.spm_normalizer import NEVER, SPACE
from minislm.text.tokenizer_file import CLS, ENCODER_TOKENS, SEP, UNKNOWN, is_library_failure

LONGEST_BERT_WORD = 100  # characters; what is longer is unknown


def from_word_list(text: str, config: Mapping[str, Any], origin: str) -> tokenizers.Tokenizer:
    """Make BERT's tokenizer from a vocab.txt.

    Parameters
    ----------
    text : str
        A token a line.
    config : mapping
        The values of tokenizer_config.json, of which it heeds ``do_lower_case``, ``strip_accents`` and
        ``tokenize_chinese_chars``.
    origin : str
        The file's name in errors.

    Returns
    -------
    tokenizers.Tokenizer
        WordPiece.

    Raises
    ------
    ModelFileError
        Code ``tokenizer_invalid``.
    UnsupportedError
        Code ``unsupported_tokenizer``.
    """
    if config.get("do_basic_tokenize", True) is not True:
        raise unsupported(f"{origin}: minislm does not read a WordPiece that is not split into words first")
    words = text.removesuffix("\n").split("\n")
    vocab = {word.removesuffix("\r"): number for number, word in enumerate(words)}
    if len(vocab) < len(words):
        raise invalid(f"{origin}: a token stands in two lines")
    if missing := [token for token in (UNKNOWN, CLS, SEP) if token not in vocab]:
        raise invalid(f"{origin} has no {missing[0]}")
    model = models.WordPiece(vocab, unk_token=UNKNOWN, max_input_chars_per_word=LONGEST_BERT_WORD)
    inner = tokenizers.Tokenizer(model)
    inner.normalizer = normalizers.BertNormalizer(
        lowercase=config.get("do_lower_case", True) is True,
        strip_accents=config.get("strip_accents"),
        handle_chinese_chars=config.get("tokenize_chinese_chars", True) is True,
    )
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    inner.add_special_tokens([AddedToken(token, special=True) for token in ENCODER_TOKENS if token in vocab])
    inner.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(token, vocab[token]) for token in (CLS, SEP)],
    )
    return inner


def from_merges(vocab: Mapping[str, Any], merges: str, config: Mapping[str, Any], origin: str) -> tokenizers.Tokenizer:
    """Make a byte-level tokenizer from a vocab.json and a merges.txt.

    Parameters
    ----------
    vocab : mapping of str to int
        The values of vocab.json.
    merges : str
        The text of merges.txt: two tokens a line, after a line with its version.
    config : mapping
        The values of tokenizer_config.json, of which it heeds ``add_prefix_space``, and ``tokenizer_class`` where it is
        Qwen2's, which cuts words in its own way.
    origin : str
        The folder's name in errors.

    Returns
    -------
    tokenizers.Tokenizer
        As GPT-2's.

    Raises
    ------
    ModelFileError
        Code ``tokenizer_invalid``.
    """
    _check_numbers(vocab, f"{origin}: vocab.json")
    pairs = []
    for number, line in enumerate(merges.split("\n")):
        if line.startswith("#version") or not line.strip():
            continue
        pair = line.removesuffix("\r").split(" ")
        if len(pair) != 2:
            raise invalid(f"{origin}: line {number + 1} of merges.txt is {clipped(line)}, not two tokens")
        pairs.append((pair[0], pair[1]))
    try:
        inner = tokenizers.Tokenizer(models.BPE(dict(vocab), pairs))
    except BaseException as error:
        if not is_library_failure(error):
            raise
        raise invalid(f"{origin}: {clipped(str(error))}") from error
    inner.decoder = decoders.ByteLevel()
    if str(config.get("tokenizer_class")).startswith("Qwen2"):
        inner.normalizer = normalizers.NFC()
        words = pre_tokenizers.Split(tokenizers.Regex(PATTERNS["Qwen2, Qwen3"]), "isolated")
        inner.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(False, use_regex=False)])
    else:
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=config.get("add_prefix_space") is True)
    if "<|endoftext|>" in vocab:
        inner.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    return inner


def from_spm(model: SpmModel) -> tokenizers.Tokenizer:
    """Make a tokenizer from a SentencePiece model.

    Its normalizer is as near to SentencePiece's as the library's can be; `Roles.spm` says what makes it equal.

    Parameters
    ----------
    model : SpmModel
        What `read_spm` returned.

    Returns
    -------
    tokenizers.Tokenizer
        With the same token ids.

    Raises
    ------
    UnsupportedError
        Code ``unsupported_tokenizer``: unigrams that fall back to bytes, which the library would find in text too.
    """
    if model.kind == UNIGRAM and model.byte_fallback:
        raise unsupported("minislm does not read a unigram model that spells what is unknown in bytes")
    texts = [NEVER + piece.text if piece.kind == UNUSED else piece.text for piece in model.pieces]
    unknown = model.unknown
    if model.kind == BPE:
        inner = tokenizers.Tokenizer(
            models.BPE(
                {text: number for number, text in enumerate(texts)},
                _merges(model.pieces),
                unk_token=texts[unknown],
                fuse_unk=True,
                byte_fallback=model.byte_fallback,
            )
        )
    else:
        scores = [piece.score for piece in model.pieces]
        inner = _unigram(texts, scores, unknown)
    _dress(inner, model)
    for kinds, special in (((UNKNOWN_PIECE, CONTROL), True), ((USER_DEFINED,), False)):
        found = [piece.text for piece in model.pieces if piece.kind in kinds]
        inner.add_tokens([AddedToken(text, special=special, normalized=False) for text in found])
    return inner


def from_marian(model: SpmModel, vocab: Mapping[str, Any], origin: str) -> tokenizers.Tokenizer:
    """Make one of a Marian model's two tokenizers: pieces of one language, numbered by a table for both.

    Parameters
    ----------
    model : SpmModel
        What `read_spm` made of source.spm or target.spm; a unigram model.
    vocab : mapping of str to int
        The values of vocab.json. Its tokens that are no pieces of `model` are never found; they are spelled with a
        space in front.
    origin : str
        The folder's name in errors.

    Returns
    -------
    tokenizers.Tokenizer
        With the numbers of `vocab`; pieces that it lacks come after them, and stand for what is unknown.

    Raises
    ------
    ModelFileError
        Code ``tokenizer_invalid``.
    UnsupportedError
        Code ``unsupported_tokenizer``: `model` is none of unigrams.
    """
    _check_numbers(vocab, f"{origin}: vocab.json")
    special = [token for token in ("</s>", "<unk>", "<pad>") if token in vocab]
    if len(special) < 3:
        raise invalid(f"{origin}: vocab.json must have </s>, <unk> and <pad>")
    if model.kind == BPE or model.byte_fallback:
        raise unsupported(f"{origin}: minislm reads Marian's unigram models only")
    scores = {piece.text: piece.score for piece in model.pieces if piece.kind in (NORMAL, USER_DEFINED)}
    lowest = min(scores.values(), default=0.0)
    named = sorted(vocab, key=vocab.__getitem__)
    texts = [token if token in scores or token in special else NEVER + token for token in named]
    texts += [text for text in scores if text not in vocab]
    inner = _unigram(texts, [scores.get(text, lowest) for text in texts], vocab["<unk>"])
    _dress(inner, model)
    inner.add_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return inner


def _unigram(texts: Sequence[str], scores: Sequence[float], unknown: int) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer(models.Unigram(list(zip(texts, scores, strict=True)), unk_id=unknown))


def _dress(inner: tokenizers.Tokenizer, model: SpmModel) -> None:
    """Give a tokenizer what SentencePiece does before and after its model."""
    steps: list[Any] = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if model.strip:
        steps += [normalizers.Strip(), normalizers.Replace(tokenizers.Regex(PATTERNS["runs of spaces"]), " ")]
    if model.dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    inner.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    back: list[Any] = [decoders.Replace(NEVER, ""), decoders.Replace(SPACE, " ")]
    back += [decoders.ByteFallback()] if model.byte_fallback else []
    back += [decoders.Fuse()]
    back += [decoders.Strip(" ", MOST_STRIPPED if model.strip else 1, 0)] if model.dummy_prefix else []
    inner.decoder = decoders.Sequence(back)


def _merges(pieces: Sequence[Piece]) -> list[tuple[str, str]]:
    """Find the pairs that SentencePiece may merge: all that make a piece, the best pieces first."""
    numbers = {piece.text: number for number, piece in enumerate(pieces) if piece.kind == NORMAL}
    found = []
    for text, number in numbers.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in numbers and right in numbers:
                found.append((-pieces[number].score, numbers[left], numbers[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]


def _check_numbers(vocab: Mapping[str, Any], origin: str) -> None:
    numbers = list(vocab.values())
    if not numbers or any(type(number) is not int for number in numbers):
        raise invalid(f"{origin} must give each token a number")
    if sorted(numbers) != list(range(len(numbers))):
        raise invalid(f"{origin}: token ids must be 0 to {len(numbers) - 1}, each once")
