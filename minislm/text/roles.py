"""Roles: which special tokens a tokenizer has for what, and what else tokenizer_config.json says of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import tokenizers
from tokenizers import AddedToken, processors

from minislm.errors import clipped
from minislm.text.components import invalid
from minislm.text.tokenizer_file import CLS, END_OF_TEXT, MASK, PAD, SEP, UNKNOWN

# What tokens are called in files that do not say what they are for.
USUAL = {
    "bos": ("<s>", "<bos>", "<|begin_of_text|>"),
    "eos": (END_OF_TEXT, "</s>", "<eos>", "<|end_of_text|>"),
    "unk": (UNKNOWN, "<unk>"),
    "pad": (PAD, "<pad>"),
    "cls": (CLS,),
    "sep": (SEP,),
    "mask": (MASK,),
}
DEFAULT = "default"
LONGEST_TEXT = 10**9  # tokens; files write 10^30 for "any"


@dataclass(frozen=True)
class Roles:
    """What special tokens are for.

    Parameters
    ----------
    bos, eos : str, optional
        What a text begins and ends with. None here and below: there is none.
    unk : str, optional
        What stands for text that no other token spells.
    pad : str, optional
        What fills short rows of a batch.
    cls, sep : str, optional
        What an encoder's input begins with, and what ends each of its texts.
    mask : str, optional
        What stands in place of a token that an encoder is to guess.
    max_length : int, optional
        Most tokens that the tokenizer's model reads. None: not said.
    clean_up : bool
        Whether the file asks for spaces before punctuation to be deleted from decoded text; kept, not obeyed, because
        it deletes what the model wrote.
    templates : mapping of str to str
        Chat templates by name; the usual one is called "default".
    spm : mapping of str to bool, optional
        Whether text is normalized exactly as SentencePiece does: with the charsmap of the normalizer, and
        ``dummy_prefix`` and ``strip`` as in `SpmNormalizer`. None: as the `tokenizers` library does, whose charsmap
        loses some combining marks.
    n_tokens : int, optional
        Tokens from this number on stand for what is unknown: Marian's pieces without a number. None: there are none.
    """

    bos: str | None = None
    eos: str | None = None
    unk: str | None = None
    pad: str | None = None
    cls: str | None = None
    sep: str | None = None
    mask: str | None = None
    max_length: int | None = None
    clean_up: bool = False
    templates: Mapping[str, str] = field(default_factory=dict)
    spm: Mapping[str, bool] | None = None
    n_tokens: int | None = None

    @classmethod
    def usual(cls, inner: tokenizers.Tokenizer) -> Self:
        """Give special tokens the roles that their texts usually have.

        Parameters
        ----------
        inner : tokenizers.Tokenizer
            Whose tokens.

        Returns
        -------
        Roles
            Nothing but the tokens of each role.
        """
        return dataclasses.replace(cls(), **_usual(inner))

    @classmethod
    def read(
        cls,
        inner: tokenizers.Tokenizer,
        config: Mapping[str, Any],
        *,
        special_tokens: Mapping[str, Any] | None = None,
        model_config: Mapping[str, Any] | None = None,
        templates: Mapping[str, str] | None = None,
        origin: str = "tokenizer_config.json",
    ) -> Self:
        """Make roles from what a model folder says, and tell `inner` what it says of its tokens.

        Parameters
        ----------
        inner : tokenizers.Tokenizer
            Gets the added tokens that only `config` has, and takes those that a file lists as special for such.
        config : mapping
            The values of tokenizer_config.json; not trusted.
        special_tokens : mapping, optional
            The values of special_tokens_map.json, for roles that `config` does not name.
        model_config : mapping, optional
            The values of config.json, for roles that neither names.
        templates : mapping of str to str, optional
            Chat templates that stand in files of their own; they go before those in `config`.
        origin : str
            The file's name in errors.

        Returns
        -------
        Roles
            The roles. What no file names has the usual token, if there is one.

        Raises
        ------
        ModelFileError
            Code ``tokenizer_invalid``: a token that is not there or has another number, or a value of the wrong kind.
        """
        _add_tokens(inner, config.get("added_tokens_decoder") or {}, origin)
        named = {**_named_by_number(inner, model_config or {}), **_named(special_tokens or {}, origin)}
        roles = {**_usual(inner), **named, **_named(config, origin)}
        for role, token in roles.items():
            if token is not None and inner.token_to_id(token) is None:
                raise invalid(f"{origin}: the {role} token {clipped(token)} is not in the vocabulary")
        listed = [*_listed(special_tokens or {}, origin), *_listed(config, origin)]
        _make_special(inner, [*filter(None, roles.values()), *listed])
        longest = config.get("model_max_length")
        own = config.get("minislm") or {}
        return dataclasses.replace(
            cls(),
            **roles,
            max_length=longest if type(longest) is int and 0 < longest <= LONGEST_TEXT else None,
            clean_up=config.get("clean_up_tokenization_spaces") is True,
            templates={**_templates(config.get("chat_template"), origin), **(templates or {})},
            spm=_flags(own.get("spm"), origin),
            n_tokens=_count(own.get("n_tokens"), origin),
        )

    def to_config(self) -> dict[str, Any]:
        """Say the same in the words of tokenizer_config.json.

        Returns
        -------
        dict
            From which `read` makes equal roles.
        """
        values: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
        values |= {f"{name}_token": getattr(self, name) for name in USUAL}
        values["clean_up_tokenization_spaces"] = self.clean_up
        if self.max_length is not None:
            values["model_max_length"] = self.max_length
        if set(self.templates) == {DEFAULT}:
            values["chat_template"] = self.templates[DEFAULT]
        elif self.templates:
            values["chat_template"] = [{"name": name, "template": text} for name, text in self.templates.items()]
        if self.spm is not None or self.n_tokens is not None:
            values["minislm"] = {"spm": self.spm and dict(self.spm), "n_tokens": self.n_tokens}
        return values


def surround(inner: tokenizers.Tokenizer, before: str | None, after: str | None) -> None:
    """Let a tokenizer put special tokens around a text.

    Parameters
    ----------
    inner : tokenizers.Tokenizer
        The tokenizer.
    before, after : str or None
        The tokens; None: nothing.
    """
    first = [token for token in (before, "$A", after) if token]
    second = [token for token in (before, "$B", after) if token]
    inner.post_processor = processors.TemplateProcessing(
        single=first,
        pair=first + second,
        special_tokens=[(token, special_tokens(inner)[token]) for token in {before, after} if token],
    )


def special_tokens(inner: tokenizers.Tokenizer) -> dict[str, int]:
    """List the tokens that no text is turned into.

    Parameters
    ----------
    inner : tokenizers.Tokenizer
        Whose tokens.

    Returns
    -------
    dict of str to int
        Their numbers.
    """
    return {token.content: number for number, token in inner.get_added_tokens_decoder().items() if token.special}


def _usual(inner: tokenizers.Tokenizer) -> dict[str, Any]:
    there = special_tokens(inner)
    return {role: next((token for token in tokens if token in there), None) for role, tokens in USUAL.items()}


def _named(values: Mapping[str, Any], origin: str) -> dict[str, str | None]:
    """Return the tokens that a file names, as text or as an object with ``content``."""
    named: dict[str, str | None] = {}
    for role in USUAL:
        if f"{role}_token" in values:
            token = values[f"{role}_token"]
            token = token.get("content") if isinstance(token, dict) else token
            if not isinstance(token, str | None):
                raise invalid(f"{origin}: {role}_token is {clipped(token)}, not text")
            named[role] = token
    return named


def _named_by_number(inner: tokenizers.Tokenizer, values: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the special tokens whose numbers config.json gives."""
    by_number = {number: token for token, number in special_tokens(inner).items()}
    found = {}
    for role in USUAL:
        number = values.get(f"{role}_token_id")
        number = number[0] if isinstance(number, list) and number else number
        if type(number) is int and number in by_number:
            found[role] = by_number[number]
    return dict(found)


def _add_tokens(inner: tokenizers.Tokenizer, tokens: Any, origin: str) -> None:
    """Add the tokens that tokenizer.json does not have, in the order of their numbers."""
    try:
        numbered = sorted((int(number), token) for number, token in tokens.items())
        there = {token.content for token in inner.get_added_tokens_decoder().values()}
        for number, token in numbered:
            flags = {name: token.get(name) is True for name in ("lstrip", "rstrip", "single_word", "normalized")}
            if token["content"] not in there:
                inner.add_tokens([AddedToken(token["content"], special=token.get("special") is True, **flags)])
            if inner.token_to_id(token["content"]) != number:
                raise invalid(f"{origin}: the added token {clipped(token['content'])} cannot have the id {number}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise invalid(f"{origin}: added_tokens_decoder: {clipped(str(error))}") from error


def _listed(values: Mapping[str, Any], origin: str) -> list[str]:
    """Return the special tokens that a file lists without a role, in a list or by names of its own."""
    found: list[str] = []
    for name in ("additional_special_tokens", "extra_special_tokens"):
        tokens = values.get(name) or []
        for token in tokens.values() if isinstance(tokens, dict) else tokens if isinstance(tokens, list) else [tokens]:
            text = token.get("content") if isinstance(token, dict) else token
            if not isinstance(text, str):
                raise invalid(f"{origin}: {name} holds {clipped(token)}, not text")
            found.append(text)
    for token in (values.get("added_tokens_decoder") or {}).values():
        found += [token["content"]] if token.get("special") is True else []
    return found


def _make_special(inner: tokenizers.Tokenizer, tokens: Iterable[str]) -> None:
    """Take care that no text becomes one of these tokens, and that none is shown; what has no number is left out."""
    known, added = special_tokens(inner), {t.content: t for t in inner.get_added_tokens_decoder().values()}
    for text in dict.fromkeys(tokens):
        if text not in known and inner.token_to_id(text) is not None:
            token = added.get(text) or AddedToken(text, normalized=False)
            token.special = True
            inner.add_special_tokens([token])


def _templates(value: Any, origin: str) -> dict[str, str]:
    """Return chat templates by name; a file has one, or a list of named ones."""
    if value is None:
        return {}
    try:
        found = {DEFAULT: value} if isinstance(value, str) else {entry["name"]: entry["template"] for entry in value}
        if all(isinstance(text, str) for text in (*found, *found.values())):
            return found
    except (KeyError, TypeError):
        pass
    raise invalid(f"{origin}: chat_template is neither text nor a list of named texts but {clipped(value)}")


def _flags(value: Any, origin: str) -> dict[str, bool] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or value.keys() != {"dummy_prefix", "strip"}:
        raise invalid(f"{origin}: spm must say dummy_prefix and strip, not {clipped(value)}")
    return {name: flag is True for name, flag in value.items()}


def _count(value: Any, origin: str) -> int | None:
    if value is not None and (type(value) is not int or value < 1):
        raise invalid(f"{origin}: n_tokens is {clipped(value)}, no number of tokens")
    return value


def to_json(values: Mapping[str, Any]) -> str:
    """Write down a JSON file.

    Parameters
    ----------
    values : mapping
        Its values.

    Returns
    -------
    str
        Its text.
    """
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
