"""The tokenizer of a GGUF file, as the text of the tokenizer.json that it was made from.

A file holds the tokens with a type for each, and merges (byte-level pairs, ``gpt2``) or scores (pairs of characters
with bytes for what is unknown, ``llama``); how text is cut into words it only names. What a pair may merge to, which
token plays which role and which stand around a text is put together again here.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np

from minislm.errors import ModelFileError, UnsupportedError, clipped

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Types of tokens."""

LONGEST = 1000  # characters of a token that is cut at every place

ROLES = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "sep_token": "seperator_token_id",  # so it is spelled in the format
    "pad_token": "padding_token_id",
    "cls_token": "cls_token_id",
    "mask_token": "mask_token_id",
}
"""From the keys of tokenizer_config.json to settings, which begin with ``tokenizer.ggml.``."""

ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
"""Settings of tokens that end a text."""

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_OF_LLAMA3, _OF_QWEN2 = _CL100K % r"\p{N}{1,3}", _CL100K % r"\p{N}"


def _byte_level(*before: dict[str, Any], regex: bool = True) -> dict[str, Any]:
    """Return the part that turns words into letters for bytes, after others that cut text."""
    last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": regex}
    return {"type": "Sequence", "pretokenizers": [*before, last]} if before else last


def _split(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


WORDS = {
    "gpt-2": _byte_level(),
    "phi-2": _byte_level(),
    "smollm": _byte_level({"type": "Digits", "individual_digits": True}),
    "llama-bpe": _byte_level(_split(_OF_LLAMA3), regex=False),
    "qwen2": _byte_level(_split(_OF_QWEN2), regex=False),
    "default": _byte_level(
        _split(r"[\p{P}\$\+<=>\^~\|]+"), _split(GPT2), _split(r"\p{N}+"), _split("[0-9][0-9][0-9]"), regex=False
    ),
}
"""How text is cut into words, by the name that a file has for it; files of before there were names mean the last."""

OTHER_NAMES = {"llama3": "llama-bpe", "llama-v3": "llama-bpe"}
WHOLE_WORDS = ("llama-bpe",)  # a word that is a token needs no merges; a text begins with bos


class Tokenizing(NamedTuple):
    """What a file says about its tokenizer.

    Parameters
    ----------
    text : str
        The text of tokenizer.json: the one that the file holds, or an equal one.
    roles : dict
        The values of tokenizer_config.json: ``bos_token`` and the like, ``add_bos_token``, ``add_eos_token``,
        ``chat_template``; what the file does not say is missing.
    generation : dict
        The values of generation_config.json: ``bos_token_id``, ``eos_token_id`` (a list where several tokens end a
        text) and ``pad_token_id``, as far as the file says them.
    """

    text: str
    roles: dict[str, Any]
    generation: dict[str, Any]


def tokenizer_of(settings: dict[str, Any], origin: str) -> Tokenizing:
    """Put the tokenizer of a file together.

    Parameters
    ----------
    settings : dict
        All settings of the file; not trusted.
    origin : str
        The file in errors.

    Returns
    -------
    Tokenizing
        Text, roles, and with which tokens texts begin and end.

    Raises
    ------
    ModelFileError
        Code ``tokenizer_invalid``.
    UnsupportedError
        Code ``unsupported_tokenizer``.
    """
    reader = _Reader(settings, origin)
    whole = reader.setting("tokenizer.huggingface.json", str, None)
    text = whole or json.dumps(reader.content(), ensure_ascii=False)
    return Tokenizing(text, reader.roles(), reader.generation())


class _Reader:
    """Reads the settings of a tokenizer."""

    def __init__(self, settings: dict[str, Any], origin: str) -> None:
        self.settings, self.origin = settings, origin
        self.tokens = self.texts("tokens")
        self.types = self.numbers("token_type", "iu", NORMAL)
        while self.tokens and self.types[len(self.tokens) - 1] == UNUSED:
            self.tokens.pop()  # rows of the embedding beyond the tokenizer's tokens
        if not self.tokens or "" in self.tokens or len(set(self.tokens)) < len(self.tokens):
            raise self.invalid("tokens must be there, each with a text of its own")
        self.ids = {token: number for number, token in enumerate(self.tokens)}

    def content(self) -> dict[str, Any]:
        """Return the values of tokenizer.json."""
        kind = self.setting("tokenizer.ggml.model", str)
        if kind not in ("gpt2", "llama"):
            raise self.unsupported(f"tokenizers of the kinds gpt2 and llama are read, not {clipped(kind)}")
        parts = self.byte_level() if kind == "gpt2" else self.spaced()
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": self.added(),
            **parts,
        }

    def byte_level(self) -> dict[str, Any]:
        """Return the parts of a tokenizer that merges bytes."""
        name = self.setting("tokenizer.ggml.pre", str, "default")
        name = OTHER_NAMES.get(name, name)
        if name not in WORDS:
            raise self.unsupported(f"text cut as in {', '.join(WORDS)} is read, not as in {clipped(name)}")
        merges = [merge.split(" ") for merge in self.texts("merges")]
        for place, pair in enumerate(merges):
            if len(pair) != 2 or not {*pair, "".join(pair)} <= self.ids.keys():
                raise self.invalid(f"merge {place} is {clipped(' '.join(pair))}, which are no tokens that make one")
        return {
            # Qwen's own tokenizer composes characters, which llama.cpp does not.
            "normalizer": {"type": "NFC"} if name == "qwen2" else None,
            "pre_tokenizer": WORDS[name],
            "post_processor": self.template(bos=name in WHOLE_WORDS)
            or {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": self.pairs(merges, ignore_merges=name in WHOLE_WORDS),
        }

    def spaced(self) -> dict[str, Any]:
        """Return the parts of a tokenizer that merges characters, spaces being spelled ▁."""
        prefix = self.setting("tokenizer.ggml.add_space_prefix", bool, True)
        if self.setting("tokenizer.ggml.remove_extra_whitespaces", bool, False):
            raise self.unsupported("text that loses spaces is not read")
        before = [{"type": "Prepend", "prepend": "▁"}] if prefix else []
        after = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
        unknown = self.token_id("unknown_token_id")
        bytes_there = [self.ids.get(f"<0x{byte:02X}>", -1) for byte in range(256)]
        return {
            "normalizer": {
                "type": "Sequence",
                "normalizers": [*before, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}],
            },
            "pre_tokenizer": None,
            "post_processor": self.template(bos=True),
            "decoder": {
                "type": "Sequence",
                "decoders": [
                    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                    {"type": "ByteFallback"},
                    {"type": "Fuse"},
                    *after,
                ],
            },
            "model": self.pairs(
                self.scored_merges(),
                unk_token=None if unknown is None else self.tokens[unknown],
                fuse_unk=True,
                byte_fallback=all(number >= 0 and self.types[number] == BYTE for number in bytes_there),
            ),
        }

    def scored_merges(self) -> list[list[str]]:
        """List every pair of tokens that makes a token, the best score first.

        Where a token can be made in several ways, the way with the longer left part comes first, as in the tools that
        publish such tokenizers.
        """
        if max(map(len, self.tokens)) > LONGEST:
            raise self.unsupported(f"tokens of at most {LONGEST} characters are read")
        scores = self.numbers("scores", "f", 0.0)
        if np.isnan(scores).any():
            raise self.invalid("scores must be numbers")
        pairs = []
        for number, token in enumerate(self.tokens):
            if self.types[number] in (NORMAL, USER_DEFINED, UNUSED):
                for cut in range(1, len(token)):
                    left, right = token[:cut], token[cut:]
                    if left in self.ids and right in self.ids:
                        pairs.append((-float(scores[number]), -len(left), -len(right), left, right))
        return [[left, right] for *_, left, right in sorted(pairs, key=lambda pair: pair[:3])]

    def pairs(self, merges: list[list[str]], **options: Any) -> dict[str, Any]:
        usual: dict[str, Any] = {
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
        }
        usual |= {"fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
        return {"type": "BPE", **usual, **options, "vocab": self.ids, "merges": merges}

    def added(self) -> list[dict[str, Any]]:
        """Return the tokens that are found in text before it is cut."""
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        return [
            {"id": number, "content": token, **flags, "special": kind != USER_DEFINED}
            for number, (token, kind) in enumerate(zip(self.tokens, self.types.tolist(), strict=False))
            if kind in (UNKNOWN, CONTROL, USER_DEFINED)
        ]

    def template(self, *, bos: bool) -> dict[str, Any] | None:
        """Say what stands around a text; None: nothing. Roles that no token plays stand nowhere."""
        before, after = self.around("bos", bos), self.around("eos", False)
        if not before and not after:
            return None

        def special(token: str, text: int) -> dict[str, Any]:
            return {"SpecialToken": {"id": token, "type_id": text}}

        def around(name: str, text: int) -> list[dict[str, Any]]:
            inside = {"Sequence": {"id": name, "type_id": text}}
            return [*(special(token, text) for token in before), inside, *(special(token, text) for token in after)]

        return {
            "type": "TemplateProcessing",
            "single": around("A", 0),
            "pair": [*around("A", 0), *around("B", 1)],
            "special_tokens": {
                token: {"id": token, "ids": [self.ids[token]], "tokens": [token]} for token in {*before, *after}
            },
        }

    def around(self, role: str, usual: bool) -> list[str]:
        """Return the token of a role if the file puts it around texts."""
        number = self.token_id(f"{role}_token_id")
        wanted = self.setting(f"tokenizer.ggml.add_{role}_token", bool, usual)
        return [] if number is None or not wanted else [self.tokens[number]]

    def roles(self) -> dict[str, Any]:
        """Return the values of tokenizer_config.json."""
        found: dict[str, Any] = {
            role: self.tokens[number] for role, name in ROLES.items() if (number := self.token_id(name)) is not None
        }
        for name in ("add_bos_token", "add_eos_token"):
            found[name] = self.setting(f"tokenizer.ggml.{name}", bool, None)
        found["chat_template"] = self.setting("tokenizer.chat_template", str, None)
        return {name: value for name, value in found.items() if value is not None}

    def generation(self) -> dict[str, Any]:
        """Return the values of generation_config.json."""
        ends = sorted({number for name in ENDS if (number := self.token_id(name)) is not None})
        found = {
            "bos_token_id": self.token_id("bos_token_id"),
            "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
            "pad_token_id": self.token_id("padding_token_id"),
        }
        return {name: value for name, value in found.items() if value is not None}

    def setting(self, name: str, kind: type, *default: Any) -> Any:
        value = self.settings.get(name, *default)
        if type(value) is not kind and not (default and value is default[0]):
            raise self.invalid(f"{name} must be a {kind.__name__}, not {clipped(value)}")
        return value

    def texts(self, name: str) -> list[str]:
        found = self.setting(f"tokenizer.ggml.{name}", list)
        if not all(type(text) is str for text in found):
            raise self.invalid(f"tokenizer.ggml.{name} must be a list of texts")
        return list(found)

    def numbers(self, name: str, kinds: str, default: float) -> np.ndarray:
        """Read a number for each token."""
        found = self.settings.get(f"tokenizer.ggml.{name}")
        if found is None:
            return np.full(len(self.tokens), default)
        if not isinstance(found, np.ndarray) or found.dtype.kind not in kinds or len(found) < len(self.tokens):
            raise self.invalid(f"tokenizer.ggml.{name} must be a number for each of {len(self.tokens)} tokens")
        return found

    def token_id(self, name: str) -> int | None:
        number = self.settings.get(f"tokenizer.ggml.{name}")
        if number is None:
            return None
        if type(number) is not int or not 0 <= number < len(self.tokens):
            raise self.invalid(f"tokenizer.ggml.{name} is {clipped(number)}, which no token has")
        return number

    def invalid(self, text: str) -> ModelFileError:
        return ModelFileError("tokenizer_invalid", f"{self.origin}: {text}")

    def unsupported(self, text: str) -> UnsupportedError:
        return UnsupportedError("unsupported_tokenizer", f"{self.origin}: {text}")
