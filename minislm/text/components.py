"""What a tokenizer.json may be made of: the parts that published tokenizers have, each looked at before it is used.

The library knows more parts, but stops the whole process at some of them when they are malformed, and a regular
expression out of a file may take exponential time. Fields that can do no harm are left to the library to judge.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from typing import Any

from minislm.errors import ModelFileError, UnsupportedError, clipped
from minislm.text.charsmap import Charsmap
from minislm.text.patterns import is_known

LONGEST_WORD = 1000  # characters; WordPiece needs time quadratic in the length of a word
LONGEST_CONTENT = 16  # characters that one character may become
MOST_GROWTH = 16  # times that all parts together may make a text longer
MOST_PARTS = 32
MOST_STRIPPED = 16
DEEPEST = 3
TYPICAL_FIELDS = {"merges": "BPE", "unk_id": "Unigram", "max_input_chars_per_word": "WordPiece"}

Check = Callable[[Mapping[str, Any], str], None]


def check_components(content: Any, origin: str) -> None:
    """Refuse a tokenizer.json that is made of anything but the known parts.

    Parameters
    ----------
    content : Any
        Its JSON values; not trusted. KeyError or TypeError where something is missing or of another type.
    origin : str
        Its name in errors.

    Raises
    ------
    ModelFileError
        Code ``tokenizer_invalid``.
    UnsupportedError
        Code ``unsupported_tokenizer`` or ``unsupported_regex``.
    """
    model = content["model"]
    if isinstance(model, dict) and "type" not in model:  # files of 2020, such as DistilBERT's
        model = {**model, "type": next(kind for field, kind in TYPICAL_FIELDS.items() if field in model)}
    for place, known in KNOWN.items():
        component = model if place == "model" else content[place]
        _check_component(component, known, f"{origin}: {place}", DEEPEST)
        if _growth(component, known) > MOST_GROWTH:
            raise unsupported(f"{origin}: {place} would make texts more than {MOST_GROWTH} times as long")


def unsupported(text: str) -> UnsupportedError:
    """Make the error for a tokenizer.json with something that is not read here.

    Parameters
    ----------
    text : str
        Which file, and what it has.

    Returns
    -------
    UnsupportedError
        To be raised; code ``unsupported_tokenizer``.
    """
    return UnsupportedError("unsupported_tokenizer", text)


def invalid(text: str) -> ModelFileError:
    """Make the error for a damaged tokenizer.

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


def _check_component(component: Any, known: Mapping[str | None, Check | str | None], origin: str, depth: int) -> None:
    """Check a part, and the parts that it is made of."""
    kind = None if component is None else component["type"]
    if not isinstance(kind, str | None) or kind not in known or depth == 0:
        names = ", ".join(name or "none" for name in known)
        raise unsupported(f"{origin} may be of type {names}, not {clipped(kind)}")
    check = known[kind]
    if isinstance(check, str):
        if not 0 < len(component[check]) <= MOST_PARTS:
            raise unsupported(f"{origin} is a sequence of 1 to {MOST_PARTS} parts, not {len(component[check])}")
        for part in component[check]:
            _check_component(part, known, origin, depth - 1)
    elif check is not None:
        check(component, origin)


def _growth(component: Any, known: Mapping[str | None, Check | str | None]) -> float:
    """Bound how many times as long a checked part makes a text."""
    kind = None if component is None else component["type"]
    parts = known[kind]
    if isinstance(parts, str):
        return math.prod(_growth(part, known) for part in component[parts])
    if kind == "Replace":
        return max(1.0, len(component["content"]) / len(component["pattern"].get("String", "x")))
    if kind == "Precompiled":
        return LONGEST_CONTENT
    if kind == "TemplateProcessing":  # how often a template repeats one of the texts
        texts = [[str(piece.get("Sequence")) for piece in component[name]] for name in ("single", "pair")]
        return max(1, *(pieces.count(piece) for pieces in texts for piece in pieces if piece != "None"), 1)
    return 1


def _check_pattern(component: Mapping[str, Any], origin: str) -> None:
    pattern = component["pattern"]
    if not is_known(pattern):
        raise UnsupportedError(
            "unsupported_regex", f"{origin} has the pattern {clipped(pattern)}, which no published tokenizer has"
        )


def _check_replace(component: Mapping[str, Any], origin: str) -> None:
    _check_pattern(component, origin)
    _check_text(component["content"], origin)


def _check_text(text: Any, origin: str) -> None:
    if not isinstance(text, str) or len(text) > LONGEST_CONTENT:
        raise unsupported(f"{origin} puts in {clipped(text)}; at most {LONGEST_CONTENT} characters are read")


def _check_prepend(component: Mapping[str, Any], origin: str) -> None:
    _check_text(component["prepend"], origin)


def _check_strip(component: Mapping[str, Any], origin: str) -> None:
    start, stop = component["start"], component["stop"]
    if type(start) is not int or not 0 <= start <= MOST_STRIPPED or stop != 0:  # the library fails at the end of a text
        raise unsupported(
            f"{origin} strips {clipped(start)} characters before and {clipped(stop)} after a text; minislm reads those "
            f"that strip at most {MOST_STRIPPED} before it and none after it"
        )


def _check_charsmap(component: Mapping[str, Any], origin: str) -> None:
    try:
        data = base64.b64decode(component["precompiled_charsmap"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"{origin} has a charsmap that is no base64") from error
    Charsmap.read(data, origin)


def _check_model(model: Mapping[str, Any], origin: str) -> None:
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(option) and (model["type"], option) != ("WordPiece", "continuing_subword_prefix"):
            raise unsupported(f"{origin} with {option} is not read")


def _check_word_piece(model: Mapping[str, Any], origin: str) -> None:
    """Refuse what would make encoding fail or crawl."""
    _check_model(model, origin)
    if model["unk_token"] not in model["vocab"]:
        raise unsupported(f"{origin} must have a token for unknown words, and {clipped(model['unk_token'])} is none")
    longest = model["max_input_chars_per_word"]
    if type(longest) is not int or not 0 < longest <= LONGEST_WORD:
        raise unsupported(f"{origin}: max_input_chars_per_word must lie in 1..{LONGEST_WORD}, not {clipped(longest)}")


def _check_unigram(model: Mapping[str, Any], origin: str) -> None:
    """Refuse pieces without text or score, and an unknown piece that is none of them."""
    number, pieces = model["unk_id"], model["vocab"]
    if number is not None and (type(number) is not int or not 0 <= number < len(pieces)):
        raise invalid(f"{origin} has {len(pieces)} pieces, and the one for unknown text is {clipped(number)}")
    for piece, score in pieces:
        if not isinstance(piece, str) or not piece or type(score) not in (int, float) or not math.isfinite(score):
            raise invalid(f"{origin} has the piece {clipped(piece)} with the score {clipped(score)}")


KNOWN: dict[str, dict[str | None, Check | str | None]] = {
    "model": {
        "BPE": _check_model,
        "WordLevel": _check_model,
        "WordPiece": _check_word_piece,
        "Unigram": _check_unigram,
    },
    "normalizer": {
        None: None,
        "Sequence": "normalizers",
        "BertNormalizer": None,
        "NFC": None,
        "NFKC": None,
        "Lowercase": None,
        "Strip": None,
        "Prepend": _check_prepend,
        "Replace": _check_replace,
        "Precompiled": _check_charsmap,
    },
    "pre_tokenizer": {
        None: None,
        "Sequence": "pretokenizers",
        "ByteLevel": None,
        "Split": _check_pattern,
        "Digits": None,
        "BertPreTokenizer": None,
        "WhitespaceSplit": None,
        "Metaspace": None,
    },
    "post_processor": {None: None, "Sequence": "processors", "ByteLevel": None, "TemplateProcessing": None},
    "decoder": {
        "Sequence": "decoders",
        "ByteLevel": None,
        "Fuse": None,
        "WordPiece": None,
        "Metaspace": None,
        "ByteFallback": None,
        "Replace": _check_replace,
        "Strip": _check_strip,
    },
}
