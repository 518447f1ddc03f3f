"""Which tokenizer.json files are read: what one may be made of, and the special tokens that have a meaning here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import tokenizers

from minislm.errors import MinislmError, ModelFileError, UnsupportedError, clipped

END_OF_TEXT = "<|endoftext|>"
PAD, UNKNOWN, CLS, SEP, MASK = ENCODER_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# What a tokenizer.json may be made of. The library knows more, but stops the whole process at some of it when it is
# malformed, and a regular expression out of a file may take exponential time.
COMPONENTS = {
    "model": ("BPE", "WordLevel", "WordPiece"),
    "normalizer": (None, "BertNormalizer"),
    "pre_tokenizer": ("ByteLevel", "Split", "BertPreTokenizer"),
    "post_processor": (None, "ByteLevel", "TemplateProcessing"),
    "decoder": ("ByteLevel", "Fuse", "WordPiece"),
}
EVERY_CHARACTER = r"[\s\S]"
LONGEST_WORD = 1000  # characters; WordPiece needs time quadratic in the length of a word


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
        Its token ids are 0 to the number of tokens less 1, each once.

    Raises
    ------
    ModelFileError
        Code ``tokenizer_invalid``.
    UnsupportedError
        Code ``unsupported_tokenizer`` or ``unsupported_regex``.
    """
    try:
        content = json.loads(text)
        _check_components(content, origin)
        inner = tokenizers.Tokenizer.from_str(text)
        named = {token["content"]: token["id"] for token in content["added_tokens"]}
    except MinislmError:
        raise
    except Exception as error:  # the library raises plain Exception
        raise invalid(f"{origin}: {clipped(str(error))}") from error
    ids = sorted(inner.get_vocab(with_added_tokens=True).values())
    if ids != list(range(len(ids))):
        raise invalid(f"{origin}: token ids must be 0 to {len(ids) - 1}, each once")
    for token, number in named.items():
        if inner.token_to_id(token) != number:
            raise invalid(f"{origin}: the added token {clipped(token)} cannot have the id {clipped(number)}")
    return inner


def invalid(text: str) -> ModelFileError:
    """Make the error for a damaged tokenizer.json.

    Parameters
    ----------
    text : str
        Which file, and what is wrong with it.

    Returns
    -------
    ModelFileError
        To be raised; code ``tokenizer_invalid``.
    """
    return ModelFileError("tokenizer_invalid", f"{text}. Save the tokenizer again with the tool that made it")


def _check_components(content: Any, origin: str) -> None:
    """Refuse what is made of anything but `COMPONENTS`; KeyError or TypeError where something is missing."""
    for place, known in COMPONENTS.items():
        component = content[place]
        kind = None if component is None else component["type"]
        if kind not in known:
            names = ", ".join(name or "none" for name in known)
            raise _unsupported(f"{origin}: minislm reads a {place} of type {names}, not {clipped(kind)}")
    splitting = content["pre_tokenizer"]
    if splitting["type"] == "Split" and splitting["pattern"] != {"Regex": EVERY_CHARACTER}:
        raise UnsupportedError(
            "unsupported_regex",
            f"{origin}: minislm splits text at every character or not at all, not by {clipped(splitting['pattern'])}",
        )
    model = content["model"]
    refused = {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}
    if model["type"] == "WordPiece":
        refused.remove("continuing_subword_prefix")
        _check_word_piece(model, origin)
    for option in sorted(refused):
        if model.get(option):
            raise _unsupported(f"{origin}: minislm does not read a model with {option}")
    joining = content["post_processor"]
    if joining is not None and joining["type"] == "TemplateProcessing":
        ids = {token["content"]: token["id"] for token in content["added_tokens"]}
        if joining != _template(ids):
            raise _unsupported(
                f"{origin}: minislm reads the template {CLS} first {SEP} second {SEP}, not {clipped(joining)}"
            )


def _unsupported(text: str) -> UnsupportedError:
    return UnsupportedError("unsupported_tokenizer", text)


def _check_word_piece(model: Mapping[str, Any], origin: str) -> None:
    """Refuse what would make encoding fail or crawl; KeyError where something is missing."""
    if model["unk_token"] != UNKNOWN or UNKNOWN not in model["vocab"]:
        raise _unsupported(f"{origin}: a WordPiece model must spell unknown words {UNKNOWN}, a token of its own")
    longest = model["max_input_chars_per_word"]
    if type(longest) is not int or not 0 < longest <= LONGEST_WORD:
        raise _unsupported(f"{origin}: max_input_chars_per_word must lie in 1..{LONGEST_WORD}, not {clipped(longest)}")


def _template(ids: Mapping[str, int]) -> dict[str, Any]:
    """Say how an encoder reads one text or two, as the file does; KeyError where a special token is missing."""

    def special(token: str, text: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": text}}

    def sequence(name: str, text: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": text}}

    single = [special(CLS, 0), sequence("A", 0), special(SEP, 0)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, sequence("B", 1), special(SEP, 1)],
        "special_tokens": {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in (CLS, SEP)},
    }
