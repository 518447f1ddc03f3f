"""Reading: an encoder over texts of any lengths, packed without padding, for one of its results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from minislm.config import Head
from minislm.errors import DataError, GenerationError, UnsupportedError, UsageError
from minislm.inference.generation import check_rows
from minislm.inference.passes import gathered
from minislm.inference.program import Program
from minislm.models.encoder import Encoder
from minislm.text.pairs import Encoded

if TYPE_CHECKING:
    from minislm.language_model import LanguageModel

TOKENS = 2048  # of texts in one pass: enough for the threads to go text by text


def encoder_of(lm: LanguageModel, verb: str) -> Encoder:
    """Return the model, which must be an encoder.

    Parameters
    ----------
    lm : LanguageModel
        Any.
    verb : str
        What is asked of it, for the error.

    Returns
    -------
    Encoder
        The model.

    Raises
    ------
    UnsupportedError
        Code ``not_an_encoder``.
    """
    if not isinstance(lm.model, Encoder):
        raise UnsupportedError(
            "not_an_encoder", f"{verb} needs an encoder, and this model is of type {lm.model.config.type!r}"
        )
    return lm.model


def head_of(lm: LanguageModel, verb: str, kind: str, name: str | None = None) -> Head:
    """Find the head that a task needs.

    Parameters
    ----------
    lm : LanguageModel
        With an encoder.
    verb : str
        What is asked of it, for errors.
    kind : {"masked", "sequence", "token", "span"}
        Of the head.
    name : str, optional
        Its name; None: there is but one of its kind.

    Returns
    -------
    Head
        The head.

    Raises
    ------
    UnsupportedError
        Code ``not_an_encoder``; code ``head_missing``, with the heads that there are.
    UsageError
        Code ``ambiguous_head``: there are several, and none is named.
    """
    heads = encoder_of(lm, verb).config.heads
    found = [head for head in heads if head.kind == kind and name in (None, head.name)]
    if not found:
        there = ", ".join(f"{head.name!r} ({head.kind})" for head in heads) or "none"
        wanted = f"a {kind} head" if name is None else f"a {kind} head {name!r}"
        raise UnsupportedError("head_missing", f"{verb} needs {wanted}; the heads of this model: {there}")
    if len(found) > 1:
        names = ", ".join(repr(head.name) for head in found)
        raise UsageError("ambiguous_head", f"this model has several {kind} heads: {names}; name one with head=")
    return found[0]


def encoded_texts(
    lm: LanguageModel,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    names: tuple[str, str] = ("text", "second text"),
    cut: bool = False,
    limit: int | None = None,
) -> list[Encoded]:
    """Encode texts for an encoder after a check that there is something to read.

    Parameters
    ----------
    lm : LanguageModel
        With the tokenizer of an encoder.
    texts : sequence of str
        None empty.
    pairs : sequence of str, optional
        The second text of each.
    names : tuple of str
        What a text and its second text are called in errors.
    cut : bool
        Whether what is too long loses tokens at its end.
    limit : int, optional
        Most tokens that are not too long; None: as many as the model's context holds.

    Returns
    -------
    list of Encoded
        One for each text.

    Raises
    ------
    UsageError
        Code ``bad_texts``: a single text instead of a list; code ``bad_option``: not as many pairs as texts.
    DataError
        Code ``empty_text``; code ``unencodable_text``.
    UnsupportedError
        Code ``no_special_tokens``: the tokenizer was not made for an encoder.
    """
    for name, given in zip(names, (texts, pairs or ()), strict=True):
        if isinstance(given, str):
            raise UsageError("bad_texts", f"expected a list of texts, not the single {name}; put it into a list")
        for number, text in enumerate(given, start=1):
            if isinstance(text, str) and not text.strip():
                raise DataError("empty_text", f"{name} {number} is empty; give it words, or leave it out")
    longest = lm.model.config.context if limit is None else limit
    return lm.tokenizer.encode_pairs(texts, pairs, max_length=longest if cut else None)


def read(
    lm: LanguageModel,
    encoded: Sequence[Encoded],
    result: str,
    *,
    limit: int | None = None,
    remedy: str = "shorten or divide it, or let it be cut (--cut)",
) -> list[np.ndarray]:
    """Run an encoder over texts, short ones beside short ones, and return one of its results.

    Parameters
    ----------
    lm : LanguageModel
        With an encoder.
    encoded : sequence of Encoded
        Its inputs.
    result : str
        Name of a head, or ``"hidden"``.
    limit : int, optional
        As of `encoded_texts`.
    remedy : str
        What may be done about a text that is too long.

    Returns
    -------
    list of ndarray of float32, (T, width) or (width,)
        For each text, in order, what the result says: of each token, or of the text as a whole.

    Raises
    ------
    GenerationError
        Code ``context_length_exceeded``: a text is too long.
    DataError
        Code ``bad_token_ids``: a text has a token that the model has no row for.
    """
    longest, bound = (lm.model.config.context, "context") if limit is None else (limit, "limit")
    lengths = [len(text.ids) for text in encoded]
    for number, length in enumerate(lengths, start=1):
        if length > longest:
            raise GenerationError(
                "context_length_exceeded",
                f"text {number} has {length} tokens, special ones included, and the model's {bound} {longest}; "
                f"{remedy}",
            )
        check_rows(f"text {number}", encoded[number - 1].ids, lm.tokenizer, lm.model.config.vocab_size)
    program = lm.spares.take(result, lambda: Program.of(lm.model, [result], attention=lm.attention))
    program.reserve(min(sum(lengths), max(TOKENS, *lengths)) if lengths else 0)
    pooled = program.writer(program.results[result]).chosen
    found: dict[int, np.ndarray] = {}
    for group in gathered(lengths, TOKENS):
        counts = np.array([lengths[number] for number in group])
        ids, types = (np.concatenate([encoded[number][field] for number in group]) for field in (0, 1))
        rows = program.run_all(ids, counts, types)[result]
        parts = rows if pooled else np.split(rows, np.cumsum(counts)[:-1])
        found.update(zip(group, parts, strict=True))
    lm.spares.give(result, program)
    return [found[number] for number in range(len(encoded))]
