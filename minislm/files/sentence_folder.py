"""Folders of sentence encoders, as the sentence-transformers library writes them: how texts become vectors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minislm.errors import ModelFileError, UnsupportedError, clipped
from minislm.files.durable import standing
from minislm.files.folder import read_json, read_value
from minislm.models.fields import Fields

MODULES, LIMITS, PROMPTS, TOKENS = (
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "tokenizer_config.json",
)
POOLING = "1_Pooling"
CHAINS = (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
MODES = {"cls": "first", "cls_token": "first", "mean": "mean", "mean_tokens": "mean"}  # names, and endings of old flags
FLAG = "pooling_mode_"


def read_sentence(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read how texts become vectors, from the files that the library puts beside a model's own.

    Parameters
    ----------
    path : path
        A model folder.

    Returns
    -------
    dict
        With the one key ``sentence``: an object of ``pooling`` (``"first"`` or ``"mean"``), ``normalized``,
        ``max_tokens`` (or None) and ``width``; empty where the folder has no modules.json.

    Raises
    ------
    UnsupportedError
        Code ``unsupported_config``: another chain of modules, pooling, or a prompt before each text.
    ModelFileError, ConfigError
        Code ``config_invalid``: a file is no JSON, lacks a field, or holds something else in it.
    """
    folder = standing(Path(path))
    if not (folder / MODULES).exists():
        return {}
    modules = read_value(folder / MODULES)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ModelFileError("config_invalid", f"{folder / MODULES} must hold a list of objects")
    chain = [str(module.get("type")).rpartition(".")[2] for module in modules]
    places = [module.get("path") for module in modules]
    if chain not in CHAINS or places[0] != "" or Path(str(places[1])).name != places[1]:
        raise UnsupportedError(
            "unsupported_config",
            f"{folder / MODULES}: the modules are {clipped(chain)} at {clipped(places)}; minislm runs {CHAINS[1]}, the "
            "first in the folder itself, with or without the last",
        )
    fields = _fields(folder / places[1] / "config.json")
    limits = _fields(folder / LIMITS, needed=False)
    limits.expect("do_lower_case", False)
    _fields(folder / PROMPTS, needed=False).expect("default_prompt_name", None)
    longest = limits.whole("max_seq_length", _fields(folder / TOKENS, needed=False).whole("model_max_length", None))
    width = fields.whole("embedding_dimension", None) or fields.whole("word_embedding_dimension")
    values = {"pooling": _pooling(fields), "normalized": len(chain) == 3, "max_tokens": longest, "width": width}
    return {"sentence": values}


def sentence_files(sentence: Mapping[str, Any]) -> dict[str, Any]:
    """Say it in the library's files; undoes `read_sentence`.

    Parameters
    ----------
    sentence : mapping
        As `read_sentence` gives it; empty: nothing is said.

    Returns
    -------
    dict
        JSON values by the names of files, in the layout that every version of the library reads.
    """
    if not sentence:
        return {}
    chain = CHAINS[sentence["normalized"]]
    places = ("", POOLING, "2_Normalize")
    modules = [
        {"idx": number, "name": str(number), "path": places[number], "type": f"sentence_transformers.models.{kind}"}
        for number, kind in enumerate(chain)
    ]
    pooling = {
        "word_embedding_dimension": sentence["width"],
        "pooling_mode_cls_token": sentence["pooling"] == "first",
        "pooling_mode_mean_tokens": sentence["pooling"] == "mean",
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    return {
        MODULES: modules,
        f"{POOLING}/config.json": pooling,
        LIMITS: {"max_seq_length": sentence["max_tokens"], "do_lower_case": False},
    }


def _fields(path: Path, *, needed: bool = True) -> Fields:
    """Read one of the files; one that is not there and need not be holds nothing."""
    if path.exists():
        return Fields(read_json(path), str(path))
    if needed:
        raise ModelFileError("config_invalid", f"{path.parent.parent / MODULES} names {path}, which is not there")
    return Fields({}, str(path))


def _pooling(fields: Fields) -> str:
    """Read one pooling: a name, or the flags of the old layout."""
    named = fields.values.get("pooling_mode")
    if named is None:
        named = [flag.removeprefix(FLAG) for flag, on in fields.values.items() if flag.startswith(FLAG) and on is True]
    modes = named if isinstance(named, list) else [named]
    if len(modes) != 1 or modes[0] not in MODES:
        raise UnsupportedError(
            "unsupported_config", f"{fields.origin}: the pooling is {clipped(modes)}; minislm runs cls, or mean"
        )
    return MODES[modes[0]]
