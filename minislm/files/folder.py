"""Model folders in Hugging Face's layout: config.json, model.safetensors, generation_config.json and other texts."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minislm.errors import ModelFileError, NotFoundError, UnsupportedError, UsageError, clipped
from minislm.files import safetensors
from minislm.files.durable import new_folder, standing
from minislm.files.opened import PICKLE_SUFFIXES, pickled
from minislm.text import published as tokenizer_files

CONFIG, WEIGHTS, GENERATION = FILES = ("config.json", "model.safetensors", "generation_config.json")
INDEX = "model.safetensors.index.json"  # of weights in several files
SENTENCE = ("modules.json", "1_Pooling", "sentence_bert_config.json")  # what `sentence_folder` adds
MAX_TEXT_BYTES = 256 * 2**20


@dataclass(frozen=True)
class ModelFolder:
    """What a model folder holds.

    Parameters
    ----------
    config : mapping
        The values of config.json.
    arrays : mapping of str to ndarray
        The tensors of model.safetensors; mapped, when they were read.
    generation : mapping
        The values of generation_config.json; empty without such a file.
    further : mapping of str to object
        Texts, or JSON values, of other files by their names, to be written: tokenizer.json and the like.
    """

    config: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    generation: Mapping[str, Any]
    further: Mapping[str, Any] = field(default_factory=dict)


def read_folder(path: str | os.PathLike[str]) -> ModelFolder:
    """Read a model folder; its tensors are mapped, not read.

    Parameters
    ----------
    path : path
        The folder. If a save into it was killed half-way, what it held before is read.

    Returns
    -------
    ModelFolder
        Its files.

    Raises
    ------
    NotFoundError
        Code ``model_not_found``: nothing is there.
    ModelFileError
        Code ``not_a_model_file``: no folder, or one without a file that every model has. Code ``unsafe_format``: its
        weights are a pickle. Codes ``missing_index``, ``missing_shard`` and ``missing_tensor``: of weights in several
        files the index is not there, or not all that it names. Code ``config_invalid``: a JSON file is none. And the
        codes of `safetensors.read`.
    UnsupportedError
        Code ``unsupported_quantization``: the weights are stored as another library quantizes them.
    """
    folder = standing(Path(path))
    if not folder.exists():
        raise NotFoundError("model_not_found", f"there is no model folder {path}")
    if not folder.is_dir():
        if folder.suffix in PICKLE_SUFFIXES:
            raise pickled(folder)
        raise ModelFileError("not_a_model_file", f"{path} is a file; give the folder that holds {CONFIG} and {WEIGHTS}")
    if not os.path.lexists(folder / CONFIG):
        if others := sorted(file.name for file in folder.iterdir() if file.suffix.lower() == ".gguf"):
            which = "name the GGUF file in it" if len(others) == 1 else "name one of the GGUF files in it"
            raise ModelFileError("not_a_model_file", f"{path} has no {CONFIG}; {which}: {folder / others[0]}")
        raise ModelFileError("not_a_model_file", f"{path} is no model folder that minislm reads: it has no {CONFIG}")
    config = read_json(folder / CONFIG)
    if quantization := config.get("quantization_config"):
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
        raise UnsupportedError(
            "unsupported_quantization",
            f"{folder / CONFIG}: quantization_config says that the weights are stored by the quant_method "
            f"{clipped(method)}; minislm reads folders of unquantized tensors and GGUF files: fetch one of these",
        )
    return ModelFolder(
        config, _tensors(folder), read_json(folder / GENERATION) if os.path.lexists(folder / GENERATION) else {}
    )


def write_folder(path: str | os.PathLike[str], content: ModelFolder) -> None:
    """Write a model folder, whole or not at all, in place of the model that may stand there.

    Parameters
    ----------
    path : path
        Where. A folder that stands there is replaced if it is empty or a model folder without other files; its arrays
        may be mapped meanwhile.
    content : ModelFolder
        What to write.

    Raises
    ------
    UsageError
        Code ``not_a_model_folder``: something else stands there.
    ModelFileError
        Code ``disk_full`` or ``write_failed``; `path` is what it was, or whole and new.
    """
    path = Path(path)
    check_replaceable(path)
    with new_folder(path) as folder:
        safetensors.write_in_place(folder / WEIGHTS, content.arrays, {"format": "np"})
        for name, values in ((CONFIG, content.config), (GENERATION, content.generation), *content.further.items()):
            (folder / name).parent.mkdir(exist_ok=True)
            text = values if isinstance(values, str) else json.dumps(values, indent=2, allow_nan=False) + "\n"
            (folder / name).write_text(text, encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object; as `read_value`.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict
        Its values.

    Raises
    ------
    ModelFileError
        Code ``config_invalid``; ``duplicate_key``; ``not_regular_file``.
    """
    values = read_value(path)
    if not isinstance(values, dict):
        raise ModelFileError("config_invalid", f"{path} must hold a JSON object, not {clipped(values)}")
    return values


def read_value(path: Path) -> Any:
    """Read a file that holds JSON, refusing repeated keys and numbers that JSON does not have.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    object
        Its value.

    Raises
    ------
    ModelFileError
        Code ``config_invalid``; ``duplicate_key``; ``not_regular_file``.
    """

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(found)
        if len(values) < len(found):
            raise ModelFileError(
                "duplicate_key", f"{path}: a key stands in one object twice, among {clipped(list(values))}"
            )
        return values

    def constant(name: str) -> Any:
        raise ModelFileError("config_invalid", f"{path}: {name} is no JSON")

    try:
        return json.loads(_text(path), object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise ModelFileError("config_invalid", f"{path} is no JSON: {clipped(str(error))}") from error


def _tensors(folder: Path) -> dict[str, np.ndarray]:
    """Map the tensors of a folder, out of one file or of the several that an index names."""
    if os.path.lexists(folder / WEIGHTS):
        return safetensors.read(folder / WEIGHTS)
    if not os.path.lexists(folder / INDEX):
        if shards := sorted(file.name for file in folder.glob("model-*-of-*.safetensors")):
            raise ModelFileError(
                "missing_index",
                f"{folder} holds weights in several files, such as {clipped(shards[0])}, but not {INDEX}, which says "
                "where each tensor stands; fetch it from where they came from",
            )
        pickles = [file for file in sorted(folder.iterdir()) if file.suffix in PICKLE_SUFFIXES]
        if pickles:
            raise pickled(pickles[0])
        raise ModelFileError("not_a_model_file", f"{folder} is no model folder that minislm reads: it has no {WEIGHTS}")
    places = read_json(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise ModelFileError("config_invalid", f"{folder / INDEX}: weight_map must map tensors to files")
    found: dict[str, np.ndarray] = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelFileError("config_invalid", f"{folder / INDEX} names {clipped(name)}, no file of this folder")
        if not (folder / name).exists():
            raise ModelFileError(
                "missing_shard", f"{folder / INDEX} names {name}, which is not there; fetch it, or the folder again"
            )
        found.update(safetensors.read(folder / name))
    if lost := sorted(set(places) - set(found)):
        raise ModelFileError(
            "missing_tensor", f"{folder / INDEX} promises tensor {clipped(lost[0])}; {places[lost[0]]} does not hold it"
        )
    return found


def _text(path: Path) -> str:
    """Read a text file of a model folder."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ModelFileError("not_regular_file", f"{path} is no regular file")
        if found.st_size > MAX_TEXT_BYTES:
            raise ModelFileError("string_too_long", f"{path} has {found.st_size} bytes, more than {MAX_TEXT_BYTES}")
        return path.read_text(encoding="utf-8-sig")  # some editors put a mark before the first character
    except UnicodeDecodeError as error:
        raise ModelFileError("config_invalid", f"{path} is no UTF-8 at byte {error.start}") from error
    except OSError as error:
        raise ModelFileError("not_regular_file", f"{path} cannot be read: {error.strerror}") from error


def check_replaceable(path: Path) -> None:
    """Refuse to replace anything but a model folder, for a save deletes what it replaces.

    Long work asks before it begins, so that its result has a place at its end.

    Parameters
    ----------
    path : Path
        Where a model is to be saved.

    Raises
    ------
    UsageError
        Code ``not_a_model_folder``: something else stands there.
    """
    if not path.exists():
        return
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    others = sorted(names - {*FILES, *SENTENCE, *tokenizer_files.FILES})
    if others or not path.is_dir() or (names and not {CONFIG, WEIGHTS} <= names):
        holds = f"holds {clipped(others[0])}" if others else "is no model folder"
        raise UsageError(
            "not_a_model_folder", f"{path} {holds}, and a save would delete it; save to another folder, or move it away"
        )
