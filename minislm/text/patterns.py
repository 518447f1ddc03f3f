"""The regular expressions by which published tokenizers cut text, each known to take time linear in the text."""

from __future__ import annotations

from typing import Any

EVERY_CHARACTER = r"[\s\S]"

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_OTHERS_200K = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"


def _words(letters: str, digits: str, marks: str = "") -> str:
    """Cut as tiktoken's cl100k does, with other classes of letters and runs of digits."""
    return rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?{letters}+|{digits}| ?[^\s\p{{L}}{marks}\p{{N}}]+[\r\n]*|{_SPACES}"


def _cased_words(ending: str, digits: str) -> str:
    """Cut as tiktoken's o200k does, where a word may change from large letters to small ones once."""
    start = r"[^\r\n\p{L}\p{N}]?"
    return "|".join(
        (
            f"{start}{_UPPER}*{_LOWER}+{ending}",
            f"{start}{_UPPER}+{_LOWER}*{ending}",
            digits,
            _OTHERS_200K,
            _SPACES,
        )
    )


PATTERNS = {
    "every character": EVERY_CHARACTER,
    "GPT-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "Llama 3, OLMo 2, Phi-4, SmolLM3": _words(r"\p{L}", r"\p{N}{1,3}"),
    "Qwen2, Qwen3": _words(r"\p{L}", r"\p{N}"),
    "Qwen3.5": _words(r"[\p{L}\p{M}]", r"\p{N}", r"\p{M}"),
    "cl100k": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
    ),
    "o200k, Phi-4-mini": _cased_words(f"{_CONTRACTIONS}?", r"\p{N}{1,3}"),
    "Mistral NeMo": _cased_words("", r"\p{N}"),
    "one digit": r"\p{N}",
    "three digits": r"\p{N}{1,3}",
    "llama.cpp's default: punctuation": r"[\p{P}\$\+<=>\^~\|]+",
    "llama.cpp's default: digits": r"\p{N}+",
    "llama.cpp's default: three digits": "[0-9][0-9][0-9]",
    "runs of spaces": " {2,}",
}
_NAMES = {pattern: name for name, pattern in PATTERNS.items()}


def is_known(pattern: Any) -> bool:
    """Tell whether a pattern of a tokenizer.json is a plain string or one of `PATTERNS`.

    Parameters
    ----------
    pattern : Any
        What the file has; not trusted.

    Returns
    -------
    bool
        Whether it can be matched in time linear in the text.
    """
    if not isinstance(pattern, dict) or len(pattern) != 1:
        return False
    kind, text = next(iter(pattern.items()))
    if not isinstance(text, str) or not text:
        return False
    return kind == "String" or (kind == "Regex" and text in _NAMES)
