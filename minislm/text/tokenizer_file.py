"""Which tokenizer.json files are read, and the special tokens that have a meaning here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import tokenizers

from minislm.errors import MinislmError, clipped
from minislm.text.components import check_components, invalid, unsupported

END_OF_TEXT = "<|endoftext|>"
PAD, UNKNOWN, CLS, SEP, MASK = ENCODER_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Template(NamedTuple):
    """What stands around a text when a model reads it.

    Parameters
    ----------
    before, after : tuple of str
        Special tokens.
    """

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


def parsed(text: str, origin: str) -> tokenizers.Tokenizer:
    """Make the library's tokenizer from the text of a tokenizer.json, if it is of a kind that is read here.

    Parameters
    ----------
    text : str
        The text; not trusted.
    origin : str
        Its name in errors.

    Returns
    -------
    tokenizers.Tokenizer
        No two of its tokens have one id; an id may have no token.

    Raises
    ------
    ModelFileError
        Code ``tokenizer_invalid``.
    UnsupportedError
        Code ``unsupported_tokenizer`` or ``unsupported_regex``.
    """
    try:
        content = json.loads(text)
        check_components(content, origin)
        named = {token["content"]: token["id"] for token in content["added_tokens"]}
        special = {token["content"]: token["id"] for token in content["added_tokens"] if token["special"]}
        _check_template(content["post_processor"], special, origin)
        inner = tokenizers.Tokenizer.from_str(text)
    except MinislmError:
        raise
    except BaseException as error:
        if not is_library_failure(error):
            raise
        raise invalid(f"{origin}: {clipped(str(error))}") from error
    by_id: dict[int, str] = {}
    for token, number in inner.get_vocab(with_added_tokens=True).items():
        if number >= 2**31:
            raise invalid(f"{origin}: {clipped(token)} has the id {number}; the largest is {2**31 - 1}")
        if (other := by_id.setdefault(number, token)) != token:
            raise invalid(f"{origin}: {clipped(token)} and {clipped(other)} have the same id, {number}")
    for token, number in named.items():
        if inner.token_to_id(token) != number:
            raise invalid(f"{origin}: the added token {clipped(token)} cannot have the id {clipped(number)}")
    return inner


def is_library_failure(error: BaseException) -> bool:
    """Tell whether the `tokenizers` library failed, as it does with plain Exception, or by a panic of its Rust code.

    Parameters
    ----------
    error : BaseException
        What was raised around a call of the library.

    Returns
    -------
    bool
        False for what ends a program, such as KeyboardInterrupt.
    """
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def template(inner: tokenizers.Tokenizer) -> Template:
    """Find out what a tokenizer.json puts around a text.

    Parameters
    ----------
    inner : tokenizers.Tokenizer
        What `parsed` returned, or one made here.

    Returns
    -------
    Template
        Nothing, if its post-processor has no template.
    """
    found: Any = None if inner.post_processor is None else json.loads(inner.post_processor.__getstate__())
    parts: list[Any] = next((part["single"] for part in _processors(found) if part["type"] == "TemplateProcessing"), [])
    names: list[str] = [part["SpecialToken"]["id"] if "SpecialToken" in part else "" for part in parts]
    text = names.index("") if names else 0
    return Template(tuple(names[:text]), tuple(names[text + 1 :]))


def _processors(component: Any) -> list[Any]:
    """List a post-processor's parts, itself if it has none."""
    if component is None:
        return []
    if component["type"] != "Sequence":
        return [component]
    return [inner for part in component["processors"] for inner in _processors(part)]


def _check_template(processor: Any, ids: Mapping[str, int], origin: str) -> None:
    """Refuse a template without exactly one text, or with strange tokens; KeyError where a part is missing."""
    for part in _processors(processor):
        if part["type"] != "TemplateProcessing":
            continue
        sequences = [piece for piece in part["single"] if "Sequence" in piece]
        specials = [piece["SpecialToken"]["id"] for piece in part["single"] if "Sequence" not in piece]
        right = {token: {"id": token, "ids": [ids.get(token)], "tokens": [token]} for token in specials}
        if len(sequences) != 1 or any(part["special_tokens"].get(token) != right[token] for token in specials):
            raise unsupported(f"{origin}: minislm does not read the template {clipped(part)}")
