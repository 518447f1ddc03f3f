"""Tokenizer: text to token ids and back, by the `tokenizers` library, in Hugging Face's tokenizer.json form."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import tokenizers
from tokenizers.models import WordLevel

from minislm.errors import (
    DataError,
    MinislmError,
    ModelFileError,
    NotFoundError,
    UnsupportedError,
    UsageError,
    clipped,
    unknown,
)
from minislm.text.vocabulary import (
    END_OF_TEXT,
    KINDS,
    byte_alphabet,
    character_alphabet,
    check_components,
    learned_pairs,
)


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Text to token ids and back.

    Text is only ever text: the letters ``<|endoftext|>`` in a document or prompt become ordinary tokens, never the
    special one.

    Parameters
    ----------
    inner : tokenizers.Tokenizer
        Does the work.
    """

    inner: tokenizers.Tokenizer

    def __post_init__(self) -> None:
        self.inner.encode_special_tokens = True
        self.inner.no_truncation()
        self.inner.no_padding()

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int | None = None, *, kind: str = "bpe") -> Self:
        """Make a tokenizer for some texts.

        Parameters
        ----------
        texts : iterable of str
            Documents; "bytes" does not look at them.
        vocab_size : int, optional
            Number of tokens of "bpe"; it becomes smaller if the texts hold too few pairs to merge. The other kinds have
            as many as they need.
        kind : {"bpe", "bytes", "characters"}
            "bpe": byte-level pair encoding, the 256 bytes, merges, and an end-of-text token as the last. "bytes": id b
            is byte b, and 256 ends a text. "characters": one token for each distinct character, in order, nothing else.

        Returns
        -------
        Tokenizer
            The same one for the same texts.

        Raises
        ------
        UnsupportedError
            Code ``unknown_tokenizer_kind``.
        UsageError
            Code ``bad_vocab_size``: "bpe" without one, or with fewer than 257, or another kind with one it cannot have.
        DataError
            Code ``empty_text``: nothing to learn from.
        """
        if kind not in KINDS:
            raise unknown("tokenizer_kind", kind, KINDS)
        if kind == "bpe":
            return cls(learned_pairs(texts, vocab_size))
        made = cls(byte_alphabet() if kind == "bytes" else character_alphabet(texts))
        if vocab_size not in (None, made.vocab_size):
            raise UsageError(
                "bad_vocab_size", f"{kind} has {made.vocab_size} tokens here, not {vocab_size}; leave it out"
            )
        return made

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a tokenizer.json.

        Parameters
        ----------
        path : path
            The file.

        Returns
        -------
        Tokenizer
            Without the truncation and padding that the file may ask for.

        Raises
        ------
        NotFoundError
            Code ``file_not_found``.
        ModelFileError
            Code ``tokenizer_invalid``.
        UnsupportedError
            Code ``unsupported_tokenizer`` or ``unsupported_regex``: a kind of tokenizer that minislm does not read.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise NotFoundError("file_not_found", f"there is no file {path}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise _invalid(f"{path} cannot be read: {error}") from error
        return cls.from_json(text, origin=str(path))

    @classmethod
    def from_json(cls, text: str, *, origin: str = "tokenizer.json") -> Self:
        """Make a tokenizer from the text of a tokenizer.json.

        Parameters
        ----------
        text : str
            The text.
        origin : str
            Its name in errors, which are those of `load`.

        Returns
        -------
        Tokenizer
            As `load` returns it.
        """
        try:
            content = json.loads(text)
            check_components(content, origin)
            inner = tokenizers.Tokenizer.from_str(text)
            named = {token["content"]: token["id"] for token in content["added_tokens"]}
        except MinislmError:
            raise
        except Exception as error:  # the library raises plain Exception
            raise _invalid(f"{origin}: {clipped(str(error))}") from error
        made = cls(inner)
        if sorted(inner.get_vocab().values()) != list(range(made.vocab_size)):
            raise _invalid(f"{origin}: token ids must be 0 to {made.vocab_size - 1}, each once")
        for token, number in named.items():
            if inner.token_to_id(token) != number:
                raise _invalid(f"{origin}: the added token {clipped(token)} cannot have the id {clipped(number)}")
        return made

    def to_json(self) -> str:
        """Write down everything.

        Returns
        -------
        str
            The text of a tokenizer.json, from which `from_json` makes an equal tokenizer.
        """
        return self.inner.to_str(pretty=True) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a tokenizer.json.

        Parameters
        ----------
        path : path
            Where; as a part of a model folder it is written by `minislm.save`, whole or not at all.
        """
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return self.inner.get_vocab_size(with_added_tokens=True)

    @cached_property
    def eos_id(self) -> int | None:
        """The token that ends a document; None: there is none."""
        return self.inner.token_to_id(END_OF_TEXT)

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The tokens by id, as the library spells them (byte-level ones in its alphabet of printable letters)."""
        by_id = sorted((number, token) for token, number in self.inner.get_vocab(with_added_tokens=True).items())
        return tuple(token for _, token in by_id)

    def encode(self, text: str) -> list[int]:
        """Turn text into token ids.

        Parameters
        ----------
        text : str
            Any text; "characters" knows only those that it was made from.

        Returns
        -------
        list of int
            Its tokens, no special one among them.

        Raises
        ------
        DataError
            Code ``unencodable_text``: not text, half a character (a lone surrogate), or a character without a token.
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Turn several texts into token ids, on several threads.

        Parameters
        ----------
        texts : sequence of str
            As `encode` takes them.

        Returns
        -------
        list of list of int
            The tokens of each.

        Raises
        ------
        DataError
            As `encode`.
        """
        try:
            return [encoding.ids for encoding in self.inner.encode_batch_fast(list(texts), add_special_tokens=False)]
        except Exception as error:  # the library raises plain Exception
            raise self._unencodable(texts, error) from error

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """Turn documents into one stream of tokens for training or evaluation, each ended by the end-of-text token.

        Parameters
        ----------
        texts : sequence of str
            Documents.

        Returns
        -------
        ndarray of int32, (number of tokens,)
            One document after the other; without anything between them if the tokenizer has no end-of-text token.

        Raises
        ------
        DataError
            As `encode`.
        """
        end = [] if self.eos_id is None else [self.eos_id]
        parts = [np.array(ids + end, np.int32) for ids in self.encode_batch(texts)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """Turn token ids into text.

        Parameters
        ----------
        ids : iterable of int
            From 0 to ``vocab_size - 1``.

        Returns
        -------
        str
            The text; special tokens leave nothing in it, and bytes that are no character become U+FFFD.

        Raises
        ------
        DataError
            Code ``bad_token_ids``: outside the vocabulary.
        """
        numbers = [int(number) for number in ids]
        if numbers and not 0 <= min(numbers) <= max(numbers) < self.vocab_size:
            raise DataError(
                "bad_token_ids",
                f"token ids must lie in 0..{self.vocab_size - 1}; these run from {min(numbers)} to {max(numbers)}",
            )
        return self.inner.decode(numbers, skip_special_tokens=True)

    def text_stream(self) -> TextStream:
        """Begin to decode tokens that come one by one.

        Returns
        -------
        TextStream
            A new one.
        """
        return TextStream(self)

    def same_tokens(self, other: Tokenizer) -> bool:
        """Tell whether both tokenizers give every id the same token, so that their models' outputs can be compared.

        Parameters
        ----------
        other : Tokenizer
            The other one.

        Returns
        -------
        bool
            Whether the token tables are equal.
        """
        return self.tokens == other.tokens

    def require_same_tokens(self, other: Tokenizer) -> None:
        """Refuse a tokenizer that gives some id another token.

        Parameters
        ----------
        other : Tokenizer
            The other model's, such as a teacher's.

        Raises
        ------
        UnsupportedError
            Code ``vocabulary_differs``, with the first id that differs.
        """
        if self.same_tokens(other):
            return
        pairs = enumerate(zip(self.tokens, other.tokens, strict=False))
        difference = next(
            (
                f"token {i} is {mine!a} in one and {theirs!a} in the other"
                for i, (mine, theirs) in pairs
                if mine != theirs
            ),
            f"one has {self.vocab_size} tokens and the other {other.vocab_size}",
        )
        raise UnsupportedError(
            "vocabulary_differs",
            f"the two models must have the same vocabulary; {difference}. Train both on one tokenizer",
        )

    def _unencodable(self, texts: Iterable[Any], error: Exception) -> DataError:
        """Say what the library could not encode, and where."""
        known = set(self.tokens) if isinstance(self.inner.model, WordLevel) else None
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                return DataError("unencodable_text", f"text {number} is of type {type(text).__name__}, not str")
            for place, character in enumerate(text):
                if "\ud800" <= character <= "\udfff" or (known and character not in known):
                    return DataError(
                        "unencodable_text",
                        f"text {number}, character {place}: {character!a} is half a character or one that this "
                        "tokenizer was not made for; remove it, or use a byte-level tokenizer",
                    )
        return DataError("unencodable_text", f"the tokenizer failed: {clipped(str(error))}")


class TextStream:
    """Decodes tokens as they come, and never gives out a part of a character.

    The pieces, joined, equal the text of all tokens decoded at once.

    Parameters
    ----------
    tokenizer : Tokenizer
        Whose tokens they are.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []  # since the last token that ended with a character
        self.given = 0  # characters of their text that are out

    def push(self, token_id: int) -> str:
        """Take one token.

        Parameters
        ----------
        token_id : int
            The next token.

        Returns
        -------
        str
            The whole characters that it completes; empty while the last one is unfinished.
        """
        self.ids.append(token_id)
        text = self.tokenizer.decode(self.ids)
        whole = text.rstrip("\ufffd")  # what an unfinished character decodes to
        piece, self.given = whole[self.given :], len(whole)
        if whole == text:
            self.ids, self.given = [], 0
        return piece

    def finish(self) -> str:
        """Give out what was held back, and start anew.

        Returns
        -------
        str
            U+FFFD for a character that never became whole; most often nothing.
        """
        piece = self.tokenizer.decode(self.ids)[self.given :]
        self.ids, self.given = [], 0
        return piece


def _invalid(text: str) -> ModelFileError:
    return ModelFileError("tokenizer_invalid", f"{text}. Save the tokenizer again with the tool that made it")
