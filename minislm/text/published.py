"""The tokenizer of a published model folder, whichever files hold it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from minislm.errors import ModelFileError, clipped
from minislm.text.components import invalid, unsupported
from minislm.text.conversions import from_marian, from_merges, from_spm, from_word_list
from minislm.text.roles import DEFAULT, Roles, surround
from minislm.text.spm_file import SpmModel, read_spm
from minislm.text.tokenizer import Tokenizer
from minislm.text.tokenizer_file import parsed

TOKENIZER, TARGET, CONFIG = FILES = ("tokenizer.json", "tokenizer_target.json", "tokenizer_config.json")
SPM_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.model")
MARIAN_FILES = ("source.spm", "target.spm", "vocab.json")
MAX_BYTES = 256 * 2**20
EXTRA_IDS = 100  # T5's sentinels


def read_tokenizer(folder: str | os.PathLike[str]) -> Tokenizer:
    """Read a folder's tokenizer: tokenizer.json if it has one, else from the files that older tools wrote.

    Parameters
    ----------
    folder : path
        A model folder.

    Returns
    -------
    Tokenizer
        With the roles of its special tokens, and its chat templates.

    Raises
    ------
    ModelFileError
        Code ``tokenizer_missing``: no file that a tokenizer could be made of. Code ``tokenizer_invalid``: a file is
        damaged, or contradicts another.
    UnsupportedError
        Codes ``unsupported_tokenizer`` and ``unsupported_regex``.
    """
    folder = Path(folder)
    config = _json(folder / CONFIG)
    added = {token: number for token, number in _json(folder / "added_tokens.json").items() if type(number) is int}
    if added and "added_tokens_decoder" not in config:
        config["added_tokens_decoder"] = {str(number): {"content": token} for token, number in added.items()}
    return _chosen(folder, config)


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, str]:
    """Write down everything that `read_tokenizer` needs to make an equal tokenizer.

    Parameters
    ----------
    tokenizer : Tokenizer
        Any.

    Returns
    -------
    dict of str to str
        The texts of files by their names.
    """
    files = {TOKENIZER: tokenizer.to_json(), CONFIG: tokenizer.config_json()}
    if tokenizer.target is not None:
        files[TARGET] = tokenizer.target.to_json()
    return files


def _chosen(folder: Path, config: dict[str, Any]) -> Tokenizer:
    """Make the tokenizer from the first kind of files that is there."""
    files = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    if TOKENIZER in files:
        inner = parsed(_text(folder / TOKENIZER), str(folder / TOKENIZER))
        roles = _roles(folder, inner, config)
        if TARGET not in files:
            return Tokenizer(inner, roles)
        target = parsed(_text(folder / TARGET), str(folder / TARGET))
        return Tokenizer(inner, roles, Tokenizer(target, roles))
    if set(MARIAN_FILES) <= files:
        return _marian(folder, config)
    if found := [name for name in SPM_FILES if name in files]:
        return _sentence_pieces(folder, found[0], config)
    if {"vocab.json", "merges.txt"} <= files:
        vocab, merges = _json(folder / "vocab.json"), _text(folder / "merges.txt")
        inner = from_merges(vocab, merges, config, str(folder))
        return _surrounded(Tokenizer(inner, _roles(folder, inner, config)), config)
    if "vocab.txt" in files:
        inner = from_word_list(_text(folder / "vocab.txt"), config, str(folder / "vocab.txt"))
        return Tokenizer(inner, _roles(folder, inner, config))
    raise ModelFileError(
        "tokenizer_missing",
        f"{folder} has no tokenizer: it needs {TOKENIZER}, or one of {', '.join(SPM_FILES)}, or "
        f"{', '.join(MARIAN_FILES)}, or vocab.json with merges.txt, or vocab.txt. Download them too",
    )


def _roles(
    folder: Path, inner: tokenizers.Tokenizer, config: Mapping[str, Any], more: Mapping[str, Any] | None = None
) -> Roles:
    """Read what a folder says of a tokenizer's special tokens; `more` for what its files leave out."""
    return Roles.read(
        inner,
        config,
        special_tokens=_json(folder / "special_tokens_map.json"),
        model_config={**(more or {}), **_json(folder / "config.json")},
        templates=_templates(folder),
        origin=str(folder / CONFIG),
    )


def _sentence_pieces(folder: Path, name: str, config: Mapping[str, Any]) -> Tokenizer:
    """Convert a SentencePiece model: T5's puts EOS after a text, others BOS before it."""
    model = read_spm(_bytes(folder / name), str(folder / name))
    inner = from_spm(model)
    kind = str(config.get("tokenizer_class") or ("T5" if name == "spiece.model" else ""))
    roles = {f"{role}_token_id": number for role, number in model.roles.items()}
    texts = {role: model.pieces[number].text for role, number in model.roles.items()}
    if kind.startswith("T5"):
        n_extra = config.get("extra_ids", EXTRA_IDS)
        if type(n_extra) is not int or not 0 <= n_extra <= 10 * EXTRA_IDS:
            raise invalid(f"{folder / CONFIG}: extra_ids is {clipped(n_extra)}")
        sentinels = [f"<extra_id_{number}>" for number in reversed(range(n_extra))]
        inner.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in sentinels])
        surround(inner, None, texts.get("eos"))
    else:
        surround(inner, texts.get("bos"), None)
    return _surrounded(Tokenizer(inner, _exact(_roles(folder, inner, config, roles), model)), config)


def _marian(folder: Path, config: Mapping[str, Any]) -> Tokenizer:
    """Convert a Marian model's two tokenizers."""
    vocab = _json(folder / "vocab.json")
    made = []
    for name in MARIAN_FILES[:2]:
        model = read_spm(_bytes(folder / name), str(folder / name))
        inner = from_marian(model, vocab, str(folder))
        surround(inner, None, "</s>")
        roles = _exact(_roles(folder, inner, config), model)
        made.append(Tokenizer(inner, dataclasses.replace(roles, n_tokens=len(vocab))))
    source, target = made
    if source.roles.spm != target.roles.spm:
        raise unsupported(f"{folder}: minislm does not read a source.spm and target.spm that treat spaces differently")
    return Tokenizer(source.inner, source.roles, target)


def _surrounded(tokenizer: Tokenizer, config: Mapping[str, Any]) -> Tokenizer:
    """Put BOS and EOS around texts if tokenizer_config.json says whether; it has no say where tokenizer.json does."""
    if "add_bos_token" in config or "add_eos_token" in config:
        roles = tokenizer.roles
        before, after = (config.get(f"add_{name}_token") is True for name in ("bos", "eos"))
        surround(tokenizer.inner, roles.bos if before else None, roles.eos if after else None)
    return tokenizer


def _exact(roles: Roles, model: SpmModel) -> Roles:
    return dataclasses.replace(roles, spm={"dummy_prefix": model.dummy_prefix, "strip": model.strip})


def _templates(folder: Path) -> dict[str, str]:
    """Read the chat templates that stand in files of their own."""
    files = {DEFAULT: folder / "chat_template.jinja"}
    files |= {file.stem: file for file in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    return {name: _text(file) for name, file in files.items() if file.is_file()}


def _json(path: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object; nothing, if there is none."""
    if not path.exists():
        return {}
    try:
        values = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise invalid(f"{path} is no JSON: {clipped(str(error))}") from error
    if not isinstance(values, dict):
        raise invalid(f"{path} must hold a JSON object, not {clipped(values)}")
    return values


def _text(path: Path) -> str:
    try:
        return _bytes(path).decode("utf-8-sig")  # some editors put a mark before the first character
    except UnicodeDecodeError as error:
        raise invalid(f"{path} is no UTF-8 at byte {error.start}") from error


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES or not path.is_file():
            raise invalid(f"{path} is no regular file of at most {MAX_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise invalid(f"{path} cannot be read: {error.strerror}") from error
