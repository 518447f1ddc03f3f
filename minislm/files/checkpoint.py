"""Checkpoints: a model and its tokenizer, out of a folder or a GGUF file, in our words or those of other libraries."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from minislm import models
from minislm.errors import FAILURE, UNSUPPORTED, ConfigError, ModelFileError, UnsupportedError, UsageError, clipped
from minislm.files.durable import standing
from minislm.files.folder import read_folder
from minislm.files.gguf import is_gguf
from minislm.files.gguf_model import read_gguf
from minislm.files.gguf_names import KEYS
from minislm.files.hub import cached
from minislm.files.sentence_folder import read_sentence
from minislm.models.base import Model
from minislm.models.fields import Fields
from minislm.models.published import Published
from minislm.text.published import read_tokenizer
from minislm.text.roles import Roles
from minislm.text.tokenizer import Tokenizer
from minislm.text.tokenizer_file import parsed
from minislm.weights.base import Weight
from minislm.weights.blocks import Blocks

FORMAT_VERSION = 1
OWN = "minislm_"  # the model types of config.json that speak our words begin with it


@dataclass(frozen=True)
class Checkpoint:
    """What a folder or file holds.

    Parameters
    ----------
    model : Model
        Its matrices are mapped.
    tokenizer : Tokenizer
        Its tokenizer.
    config, generation : mapping
        The values of config.json and generation_config.json.
    history : tuple of dict
        The compression recipes that made it.
    published : str, optional
        Its ``model_type``, where other libraries wrote it.
    """

    model: Model
    tokenizer: Tokenizer
    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...] = ()
    published: str | None = None


def read_checkpoint(path: str | os.PathLike[str], context: int | None = None) -> Checkpoint:
    """Open a model folder, a GGUF file, or a folder of the local hub cache by its name.

    Parameters
    ----------
    path : path
        Where it is, or its name.
    context : int, optional
        Positions that the model is opened with.

    Returns
    -------
    Checkpoint
        Nothing is read of its matrices yet.

    Raises
    ------
    NotFoundError, ModelFileError, ConfigError, UnsupportedError, UsageError
        As `minislm.load`.
    """
    place = cached(path)
    if is_gguf(place):
        return _of_gguf(place, context)
    folder = read_folder(place)
    own, origin = folder.config.get("minislm"), os.path.join(path, "config.json")
    with _told_of(path, origin):
        published = _model_type(folder.config, origin)
        if published is None:
            model = _own_model(path, own, folder.arrays, context)
        else:
            fields = Fields({**folder.config, **read_sentence(place)}, origin)
            model = _published_model(models.published(published), fields, folder.arrays, os.fspath(path), context)
    tokenizer = read_tokenizer(standing(place))
    history = tuple(_field(path, own, "history", list)) if own else ()
    return Checkpoint(model, tokenizer, folder.config, folder.generation, history, published)


def described(
    model: Model, tokenizer: Tokenizer, history: Sequence[Mapping[str, Any]], published: str | None
) -> tuple[dict[str, Any], Mapping[str, np.ndarray]]:
    """Describe a model as other libraries do, where they can say it, or else in our words.

    Parameters
    ----------
    model : Model
        The model.
    tokenizer : Tokenizer
        Its tokenizer.
    history : sequence of dict
        The compression recipes that made it.
    published : str, optional
        The ``model_type`` to be preferred.

    Returns
    -------
    config : dict
        The values of config.json.
    arrays : mapping of str to ndarray
        The tensors.
    """
    arrays, specs = model.arrays(), model.specs()
    section: dict[str, Any] = {"version": FORMAT_VERSION, "history": list(history)}
    stored = {name: spec for name, spec in specs.items() if spec["type"] != "dense"}
    if not stored:
        for model_type in sorted(models.PUBLISHED, key=lambda name: name != published):
            how = models.published(model_type)
            values = how.said(model.config, arrays)
            if values is not None:
                said = {**values, **_roles(tokenizer), "dtype": _dtype(arrays), "minislm": section}
                return said, how.saved(arrays)
    own = {"type": model.config.type, "config": model.config.to_json(), "weights": stored}
    return {"model_type": f"{OWN}{model.config.type}", "minislm": {**section, **own}}, arrays


@contextlib.contextmanager
def _told_of(
    path: str | os.PathLike[str], origin: str, words: Mapping[str, str] = MappingProxyType({})
) -> Iterator[None]:
    """Name the place in errors that do not, and fields by its names. What a file says wrong is no wrong usage."""
    try:
        yield
    except (ConfigError, ModelFileError, UnsupportedError) as error:
        said = re.sub(r"\b[a-z]+(?:_[a-z]+)+\b", lambda field: words.get(field[0], field[0]), str(error))
        told = said if os.fspath(path) in said else f"{origin}: {said}"
        exit_code = UNSUPPORTED if isinstance(error, UnsupportedError) else FAILURE
        raise type(error)(error.code, told, exit_code=exit_code) from error


def _model_type(config: Mapping[str, Any], origin: str) -> str | None:
    """Read the architecture's name; None: the file speaks our words."""
    found = config.get("model_type")
    if found is None:
        known = ", ".join(models.PUBLISHED)
        raise ConfigError("config_invalid", f"{origin} lacks model_type; if you know which it is, add it: {known}")
    name = str(found)[:80]
    if name.startswith(OWN):
        return None
    with _told_of(origin, f"{origin}: model_type"):
        models.published(name)
    return name


def _own_model(path: str | os.PathLike[str], own: Any, arrays: Mapping[str, np.ndarray], context: int | None) -> Model:
    """Make the model of a folder whose config.json describes it in our words."""
    version = _field(path, own, "version", int)
    if version != FORMAT_VERSION:
        raise UnsupportedError(
            "unsupported_version",
            f"{path} has format version {version}; this minislm reads {FORMAT_VERSION}. Update it",
        )
    model_class, config_class = models.model_class(_field(path, own, "type", str))
    config = _opened(model_class, config_class.from_json(_field(path, own, "config", dict)), os.fspath(path), context)
    specs = _field(path, own, "weights", dict)
    return models.build(config, {name: _field(path, specs, name, dict) for name in specs}, arrays)


def _of_gguf(path: Path, context: int | None) -> Checkpoint:
    """Open a GGUF file."""
    with _told_of(path, str(path)):
        found = read_gguf(path)
    published = str(found.config["model_type"])
    how = models.published(published)
    words = {field: f"{found.architecture}.{key}" for field, key in KEYS.items()}
    with _told_of(path, str(path), words):
        model = _published_model(how, Fields(found.config, str(path)), found.tensors, str(path), context)
    inner = parsed(found.tokenizer, str(path))
    tokenizer = Tokenizer(inner, Roles.read(inner, found.roles, model_config=found.generation, origin=str(path)))
    return Checkpoint(model, tokenizer, found.config, found.generation, (), published)


def _published_model(
    how: Published,
    fields: Fields,
    tensors: Mapping[str, np.ndarray | Blocks],
    origin: str,
    context: int | None,
) -> Model:
    """Make the model of a checkpoint as other libraries write it."""
    model_class, _ = models.model_class(how.family)
    try:
        config = how.read(fields, tensors.keys())
    except (ArithmeticError, TypeError, ValueError) as error:  # of what follows from fields, each of which is possible
        told = f"{fields.origin} describes no possible model: {clipped(str(error))}"
        raise ConfigError("config_invalid", told) from error
    config = _opened(model_class, config, origin, context)
    parts = how.loaded(tensors, model_class.shapes(config), origin)
    parts = {path: part.with_activations("int8") if isinstance(part, Blocks) else part for path, part in parts.items()}
    specs = {path: part.spec() for path, part in parts.items() if isinstance(part, Weight)}
    arrays: dict[str, np.ndarray] = {}
    for path, part in parts.items():
        if isinstance(part, Weight):
            arrays.update({f"{path}.{name}" if name else path: array for name, array in part.arrays().items()})
        else:
            arrays[path] = part
    return models.build(config, specs, arrays)


def _opened(model_class: type[Model], config: Any, origin: str, context: int | None) -> Any:
    """Give a model as many positions as are asked for."""
    if context is None:
        return config
    if "positions.weight" in model_class.shapes(config):
        raise UsageError(
            "bad_option", f"{origin} has a table of its {config.context} positions, and opens with no other context"
        )
    try:
        opened = dataclasses.replace(config, context=context)
    except ConfigError as error:
        raise UsageError("bad_option", f"{origin} does not open so: {error}") from error
    if config.longest_context is not None and context > config.longest_context:
        raise UsageError(
            "bad_option",
            f"{origin} learned {config.longest_context} positions, and what it would write at others means nothing: "
            f"give a context of at most so many, not {context}",
        )
    return opened


def _roles(tokenizer: Tokenizer) -> dict[str, int | None]:
    """Name the special tokens that config.json repeats."""
    return {f"{role}_token_id": getattr(tokenizer, f"{role}_id") for role in ("bos", "eos", "pad")}


def _dtype(arrays: Mapping[str, np.ndarray]) -> str:
    """Name the dtype of most numbers."""
    counts: Counter[str] = Counter()
    for array in arrays.values():
        counts[array.dtype.name] += array.size
    return counts.most_common(1)[0][0]


def _field(path: str | os.PathLike[str], own: Any, name: str, kind: type) -> Any:
    """Return a field of config.json's minislm section, or of an object in it."""
    value = own.get(name) if isinstance(own, dict) else None
    if type(value) is not kind:
        raise ModelFileError(
            "config_invalid",
            f"{os.path.join(path, 'config.json')}: {clipped(name)} must be a {kind.__name__}, not {clipped(value)}",
        )
    return value
