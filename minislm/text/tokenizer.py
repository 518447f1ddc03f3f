"""Tokenizer: text to token ids and back, by the `tokenizers` library, in Hugging Face's tokenizer.json form."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import tokenizers
from tokenizers.models import WordLevel

from minislm.errors import DataError, NotFoundError, UnsupportedError, UsageError, clipped, unknown
from minislm.text.components import invalid
from minislm.text.pairs import Encoded, Spans, joined, spans
from minislm.text.reader import Reader
from minislm.text.roles import Roles, special_tokens, to_json
from minislm.text.stream import TextStream
from minislm.text.tokenizer_file import CLS, SEP, is_library_failure, parsed, template
from minislm.text.vocabulary import KINDS, byte_alphabet, character_alphabet, learned_pairs, needed_tokens, word_pieces

BY_NAME = Roles()  # stands for the roles that tokens usually have
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Text to token ids and back.

    Text is only ever text: the letters ``<|endoftext|>`` in a document or prompt become ordinary tokens, never the
    special one.

    Parameters
    ----------
    inner : tokenizers.Tokenizer
        Does the work.
    roles : Roles, optional
        What its special tokens are for; default: what tokens of their names are usually for.
    target : Tokenizer, optional
        For an encoder-decoder that reads and writes in different ways, as Marian does: turns the texts that it is to
        write into the same tokens. Default: this one does.
    """

    inner: tokenizers.Tokenizer
    roles: Roles = BY_NAME
    target: Tokenizer | None = None

    def __post_init__(self) -> None:
        if self.roles is BY_NAME:
            object.__setattr__(self, "roles", Roles.usual(self.inner))
        self.inner.encode_special_tokens = True
        self.inner.no_truncation()
        self.inner.no_padding()

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int | None = None,
        *,
        kind: str = "bpe",
        encoder: bool = False,
        lowercase: bool = False,
    ) -> Self:
        """Make a tokenizer for some texts.

        Parameters
        ----------
        texts : iterable of str
            Documents; "bytes" does not look at them.
        vocab_size : int, optional
            Number of tokens of "bpe" and "wordpiece"; it becomes smaller if the texts hold too few pairs to merge. The
            other kinds have as many as they need.
        kind : {"bpe", "bytes", "characters", "wordpiece"}
            "bpe": byte-level pair encoding: the 256 bytes, merges, special tokens. "bytes": id b is byte b; special
            tokens follow. "characters": one token for each distinct character, in order, nothing else. "wordpiece":
            BERT's, for encoders only.
        encoder : bool
            Whether the special tokens are those that an encoder needs ([PAD], [UNK], [CLS], [SEP], [MASK]), as
            "wordpiece" always has them, in place of the end of text.
        lowercase : bool
            Whether "wordpiece" makes letters small and takes their accents away.

        Returns
        -------
        Tokenizer
            The same one for the same texts.

        Raises
        ------
        UnsupportedError
            Code ``unknown_tokenizer_kind``.
        UsageError
            Code ``bad_vocab_size``: "bpe" or "wordpiece" without one or with too few, or another kind with one that it
            cannot have; ``contradicting_options``: a kind that cannot be lower-cased or has no special tokens.
        DataError
            Code ``empty_text``: nothing to learn from.
        """
        if kind not in KINDS:
            raise unknown("tokenizer_kind", kind, KINDS)
        if lowercase and kind != "wordpiece":
            raise UsageError("contradicting_options", f"{kind} keeps text as it is; only wordpiece can be lower-cased")
        if encoder and kind == "characters":
            raise UsageError("contradicting_options", "characters have no special tokens, which an encoder needs")
        special = needed_tokens(encoder)
        if kind == "bpe":
            return cls(learned_pairs(texts, vocab_size, special))
        if kind == "wordpiece":
            return cls(word_pieces(texts, vocab_size, lowercase=lowercase))
        made = cls(byte_alphabet(special) if kind == "bytes" else character_alphabet(texts))
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
            raise invalid(f"{path} cannot be read: {error}") from error
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
        return cls(parsed(text, origin))

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

    def config_json(self) -> str:
        """Write down what special tokens are for.

        Returns
        -------
        str
            The text of a tokenizer_config.json.
        """
        return to_json(self.roles.to_config())

    @cached_property
    def vocab_size(self) -> int:
        """Number of ids, special ones included: the largest, plus 1. Not every id has a token."""
        return max(self.tokens, default=-1) + 1

    @cached_property
    def special_ids(self) -> dict[str, int]:
        """The special tokens by their text."""
        return special_tokens(self.inner)

    @property
    def bos_id(self) -> int | None:
        """The token that begins a document; None: there is none."""
        return self._id(self.roles.bos)

    @property
    def eos_id(self) -> int | None:
        """The token that ends a document; None: there is none."""
        return self._id(self.roles.eos)

    @property
    def pad_id(self) -> int | None:
        """The token that fills short rows of a batch; None: there is none."""
        return self._id(self.roles.pad)

    @property
    def unk_id(self) -> int | None:
        """The token for what no other one spells; None: there is none."""
        return self._id(self.roles.unk)

    @property
    def cls_id(self) -> int | None:
        """The token that an encoder's input begins with; None: there is none."""
        return self._id(self.roles.cls)

    @property
    def sep_id(self) -> int | None:
        """The token that ends each text of an encoder's input; None: there is none."""
        return self._id(self.roles.sep)

    @property
    def mask_id(self) -> int | None:
        """The token in place of one that an encoder is to guess; None: there is none."""
        return self._id(self.roles.mask)

    @cached_property
    def around(self) -> tuple[list[int], list[int]]:
        """The special tokens that stand before and after a text which the model reads."""
        before, after = template(self.inner)
        ids = self.special_ids
        return [ids[token] for token in before], [ids[token] for token in after]

    @cached_property
    def tokens(self) -> dict[int, str]:
        """The tokens by id, as the library spells them (byte-level ones in its alphabet of printable letters)."""
        end = math.inf if self.roles.n_tokens is None else self.roles.n_tokens
        by_id = sorted((number, token) for token, number in self.inner.get_vocab(with_added_tokens=True).items())
        return {number: token for number, token in by_id if number < end}

    @cached_property
    def learned_ids(self) -> list[int]:
        """The ids of all tokens but those that were added later, for which a model may have no rows, as Gemma 3 has."""
        numbers = self.inner.get_vocab(with_added_tokens=False).values()
        return sorted(number for number in numbers if number in self.tokens)

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
        return self._read(self._reader.ids, texts)

    def read(self, reader: Reader, text: str) -> list[int]:
        """Turn text into token ids by another reader of this tokenizer's.

        Parameters
        ----------
        reader : Reader
            Such as one that knows marks for special tokens.
        text : str
            As `encode` takes it.

        Returns
        -------
        list of int
            Its tokens.

        Raises
        ------
        DataError
            As `encode`.
        """
        return self._read(reader.ids, [text])[0]

    def encode_prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Turn texts into what the model reads: with the special tokens around them that it was trained with.

        Parameters
        ----------
        texts : sequence of str
            As `encode` takes them.

        Returns
        -------
        list of list of int
            The tokens of each: after BOS where the tokenizer puts it, and before EOS likewise.

        Raises
        ------
        DataError
            As `encode`.
        """
        before, after = self.around
        return [[*before, *ids, *after] for ids in self.encode_batch(texts)]

    def encode_pairs(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_length: int | None = None
    ) -> list[Encoded]:
        """Turn texts into what an encoder reads, ``[CLS] text [SEP]``, or pairs, ``[CLS] text [SEP] pair [SEP]``.

        Parameters
        ----------
        texts : sequence of str
            As `encode` takes them.
        pairs : sequence of str, optional
            The second text of each; None: none has one.
        max_length : int, optional
            Most tokens of a result, at least 3: what is longer loses tokens at the end of its longer text. None: any.

        Returns
        -------
        list of Encoded
            Ids, which text each token is of, and where it stands there.

        Raises
        ------
        UnsupportedError
            Code ``no_special_tokens``: the tokenizer was not made for an encoder.
        UsageError
            Code ``bad_option``: not as many pairs as texts, or a `max_length` below 3.
        DataError
            As `encode`.
        """
        if self.cls_id is None or self.sep_id is None:
            raise UnsupportedError(
                "no_special_tokens",
                f"this tokenizer has no {CLS} and {SEP}, which an encoder's input needs; train one with encoder=True",
            )
        if pairs is not None and len(pairs) != len(texts):
            raise UsageError("bad_option", f"{len(texts)} texts and {len(pairs)} pairs; each text needs its own")
        if max_length is not None and max_length < 3:
            raise UsageError("bad_option", f"max_length must be at least 3, not {max_length}")
        firsts = self._with_spans(texts)
        seconds = [None] * len(firsts) if pairs is None else self._with_spans(pairs)
        return [
            joined(first, second, self.cls_id, self.sep_id, max_length)
            for first, second in zip(firsts, seconds, strict=True)
        ]

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """Turn documents into one stream of tokens for training or evaluation, each ended by a special token.

        Parameters
        ----------
        texts : sequence of str
            Documents.

        Returns
        -------
        ndarray of int32, (number of tokens,)
            One document after the other, each with the end-of-text token after it or else [SEP]; with nothing if the
            tokenizer has neither.

        Raises
        ------
        DataError
            As `encode`.
        """
        end = [number for number in (self.eos_id, self.sep_id) if number is not None][:1]
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
        difference = next(
            (
                f"token {i} is {token!a} in one and {other.tokens[i]!a} in the other"
                for i, token in self.tokens.items()
                if i in other.tokens and other.tokens[i] != token
            ),
            f"one has {len(self.tokens)} tokens and the other {len(other.tokens)}",
        )
        raise UnsupportedError(
            "vocabulary_differs",
            f"the two models must have the same vocabulary; {difference}. Train both on one tokenizer",
        )

    def _with_spans(self, texts: Sequence[str]) -> list[Spans]:
        """Encode texts, with the place of every token."""
        found = self._read(self._reader.encodings, texts)
        return [spans(ids, offsets, text) for (ids, offsets), text in zip(found, texts, strict=True)]

    def _id(self, token: str | None) -> int | None:
        """Return a special token's number."""
        return None if token is None else self.special_ids.get(token)

    @cached_property
    def _reader(self) -> Reader:
        """Made at first use: it may copy the model."""
        return Reader(self.inner, self.roles)

    def _read(self, encode: Callable[[Sequence[str]], list[T]], texts: Sequence[str]) -> list[T]:
        try:
            return encode(texts)
        except BaseException as error:
            if not is_library_failure(error):
                raise
            raise self._unencodable(texts, error) from error

    def _unencodable(self, texts: Iterable[Any], error: BaseException) -> DataError:
        """Say what the library could not encode, and where."""
        known = set(self.tokens.values()) if isinstance(self.inner.model, WordLevel) else None
        for number, text in enumerate(texts, start=1):
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
