"""Reader: text to token ids, where text is only ever text: nothing that it says becomes a special token."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import tokenizers
from tokenizers import AddedToken, models, normalizers

from minislm.text.charsmap import Charsmap
from minislm.text.roles import Roles, special_tokens
from minislm.text.spm_normalizer import NEVER, SpmNormalizer


class Reader:
    """Encodes texts by a tokenizer's parts.

    The library is told to take special tokens for text. That is not enough for a unigram model, which takes "</s>" for
    a piece that it spells; so such a model gets other spellings for them, with a space in front, which no text has at
    the place where a model sees it.

    Parameters
    ----------
    inner : tokenizers.Tokenizer
        The tokenizer; shared, not copied.
    roles : Roles
        Of its tokens.
    mark : str, optional
        If given, ``mark + chr(MARKED + i)`` in a text becomes the special token with the i-th number, with what that
        token does to the text around it. None: there are no special tokens at all.
    """

    MARKED = 0x100000  # in the last plane for private use

    def __init__(self, inner: tokenizers.Tokenizer, roles: Roles, mark: str | None = None) -> None:
        self.mark = mark
        self.normalizer: SpmNormalizer | None = None
        self.marks: dict[str, str] = {}
        self.numbers: dict[int, int] = {}  # of tokens that have another number here than in `inner`
        self.foreign: dict[str, int] = {}  # what becomes of unknown text that is a piece of another language
        self.codes: dict[str, int] = {}  # of languages, which stand before a text of Marian's
        self.unknown: int | None = None
        is_unigram = isinstance(inner.model, models.Unigram)
        if mark is None and not is_unigram and roles.spm is None:
            self.library = inner
            return
        added = sorted(inner.get_added_tokens_decoder().items())
        special = [token.content for _, token in added if token.special]
        self.library = tokenizers.Tokenizer(_unspelled(inner.model, special) if is_unigram else inner.model)
        self.library.encode_special_tokens = True
        if roles.spm is None:
            self.library.normalizer, self.library.pre_tokenizer = inner.normalizer, inner.pre_tokenizer
        else:
            self.normalizer = SpmNormalizer(_charsmap(inner.normalizer), **roles.spm)
        if mark is not None:
            self.marks = {token: mark + chr(self.MARKED + i) for i, token in enumerate(special)}
        for number, token in added:
            if token.special and mark is None:
                continue
            content = self.marks[token.content] if token.special else token.content
            self.library.add_tokens(
                [
                    AddedToken(
                        content,
                        single_word=token.single_word,
                        lstrip=token.lstrip,
                        rstrip=token.rstrip,
                        normalized=token.normalized and not token.special,
                        special=False,
                    )
                ]
            )
            if (here := self.library.token_to_id(content)) is not None:
                self.numbers[here] = number
        if roles.n_tokens is not None and (unknown := special_tokens(inner).get(roles.unk or "")) is not None:
            self.numbers |= dict.fromkeys(range(roles.n_tokens, inner.get_vocab_size()), unknown)
            pieces = {token.removeprefix(NEVER): (token, number) for token, number in inner.get_vocab().items()}
            self.foreign = {piece: number for piece, (token, number) in pieces.items() if token != piece}
            self.codes = {piece: number for piece, (_, number) in pieces.items() if piece.startswith(">>")}
            self.unknown = unknown

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode texts, on several threads.

        Parameters
        ----------
        texts : sequence of str
            The texts; if one cannot be encoded, the library raises plain Exception.

        Returns
        -------
        list of list of int
            The tokens of each.
        """
        if self.unknown is None:
            found = self.library.encode_batch_fast(self._normalized(texts), add_special_tokens=False)
            return [self._numbered(encoding.ids) for encoding in found]
        codes = [text[: text.find("<<") + 2] if text.startswith(">>") and "<<" in text else "" for text in texts]
        before = [self._numbered([self.codes.get(code, self.unknown)]) if code else [] for code in codes]
        rest = self._normalized([text[len(code) :] for text, code in zip(texts, codes, strict=True)])
        found = self.library.encode_batch(rest, add_special_tokens=False)
        return [
            [*code, *self._with_foreign(text, encoding)]
            for code, text, encoding in zip(before, rest, found, strict=True)
        ]

    def encodings(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Encode texts, with the place of every token.

        Parameters
        ----------
        texts : sequence of str
            As `ids` takes them.

        Returns
        -------
        list of tuple
            For each its tokens, and the characters that each stands for; where SentencePiece normalizes, of
            the text after that.
        """
        found = self.library.encode_batch(self._normalized(texts), add_special_tokens=False)
        return [(self._numbered(encoding.ids), encoding.offsets) for encoding in found]

    def _normalized(self, texts: Sequence[str]) -> list[str]:
        if self.normalizer is None:
            return list(texts)
        after_mark = dataclasses.replace(self.normalizer, dummy_prefix=False)
        is_marked = [self.mark is not None and text.startswith(self.mark) for text in texts]
        return [
            (after_mark if marked else self.normalizer).apply(text)
            for text, marked in zip(texts, is_marked, strict=True)
        ]

    def _with_foreign(self, text: str, encoding: tokenizers.Encoding) -> list[int]:
        """Give unknown text the number that it has as a piece of the other language, as Marian does."""
        found = self._numbered(encoding.ids)
        for at, (number, (start, end)) in enumerate(zip(encoding.ids, encoding.offsets, strict=True)):
            if number == self.unknown:
                found[at] = self.foreign.get(text[start:end], number)
        return found

    def _numbered(self, ids: list[int]) -> list[int]:
        return [self.numbers.get(number, number) for number in ids] if self.numbers else ids


def _unspelled(model: models.Model, special: Sequence[str]) -> models.Unigram:
    """Copy a unigram model, with spellings for special tokens that no text has."""
    state = json.loads(model.__getstate__())
    pieces = [(NEVER + piece if piece in set(special) else piece, score) for piece, score in state["vocab"]]
    return models.Unigram(pieces, unk_id=state["unk_id"], byte_fallback=state.get("byte_fallback", False))


def _charsmap(normalizer: normalizers.Normalizer | None) -> Charsmap | None:
    """Find the charsmap of a normalizer; None: it has none."""
    state: Any = (
        {"type": "Sequence", "normalizers": []} if normalizer is None else json.loads(normalizer.__getstate__())
    )
    for step in state["normalizers"] if state["type"] == "Sequence" else [state]:
        if step["type"] == "Precompiled":
            return Charsmap.read(base64.b64decode(step["precompiled_charsmap"]), "normalizer")
    return None
