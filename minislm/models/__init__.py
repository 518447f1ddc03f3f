"""One file per architecture. `MODELS` lists the families; `PUBLISHED` the checkpoints that are read into them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from minislm.config import Config
from minislm.errors import UnsupportedError, unknown, unknown_architecture
from minislm.models.base import Model
from minislm.models.parts import StoredParts
from minislm.models.published import Published

MODELS = {
    "decoder": "decoder:Decoder",
    "encoder": "encoder:Encoder",
    "transformer": "transformer:Transformer",
}

PUBLISHED = {
    "bert": "bert:BERT",
    "distilbert": "distilbert:DistilBERT",
    "mobilebert": "mobilebert:MobileBERT",
    "gpt2": "gpt2:GPT2",
    "gpt_neo": "gpt_neo:GPTNeo",
    "gptj": "gptj:GPTJ",
    "phi": "phi:Phi",
    "llama": "llama:Llama",
    "mistral": "llama:Mistral",
    "qwen2": "qwen:Qwen2",
    "qwen3": "qwen:Qwen3",
    "smollm3": "smollm3:SmolLM3",
    "phi3": "phi3:Phi3",
    "olmo2": "olmo2:Olmo2",
    "granite": "granite:Granite",
    "gemma2": "gemma:Gemma2",
    "gemma3_text": "gemma:Gemma3",
    "t5": "t5:T5",
    "marian": "marian:MARIAN",
}


def published(model_type: str) -> Published:
    """Return how checkpoints of another library are read and written.

    Parameters
    ----------
    model_type : str
        As config.json has it: a key of `PUBLISHED`.

    Returns
    -------
    Published
        Names and fields.

    Raises
    ------
    UnsupportedError
        Code ``unknown_architecture``, with the known ones and the one that was meant, or those of its family.
    """
    if f"{model_type}_text" in PUBLISHED:
        raise UnsupportedError(
            "unknown_architecture",
            f"{model_type!r} is a model of texts and images; minislm runs those of texts alone, '{model_type}_text'",
        )
    if model_type not in PUBLISHED:
        raise unknown_architecture(model_type, PUBLISHED)
    module_name, _, name = PUBLISHED[model_type].partition(":")
    found: Published = getattr(importlib.import_module(f"minislm.models.{module_name}"), name)
    return found


def model_class(name: str) -> tuple[type[Model], type[Config]]:
    """Return the Model class of a type and its Config class.

    Parameters
    ----------
    name : str
        A key of `MODELS`.

    Returns
    -------
    tuple of type
        The Model and the Config.

    Raises
    ------
    UnsupportedError
        Code ``unknown_architecture``, with the known ones and the nearest match.
    """
    if name not in MODELS:
        raise unknown("architecture", name, MODELS)
    module_name, _, class_name = MODELS[name].partition(":")
    module = importlib.import_module(f"minislm.models.{module_name}")
    return getattr(module, class_name), getattr(module, f"{class_name}Config")


def build(config: Config, specs: Mapping[str, Mapping[str, Any]], arrays: Mapping[str, np.ndarray]) -> Model:
    """Make a model out of what a folder holds, copying nothing.

    Parameters
    ----------
    config : Config
        Its sizes and choices; its class tells the architecture.
    specs : mapping of str to dict
        The spec of every Weight that is not plain Dense, by full path (`Model.specs`).
    arrays : mapping of str to ndarray
        Every stored array by full name (`Model.arrays`).

    Returns
    -------
    Model
        The model over exactly these arrays.

    Raises
    ------
    ModelFileError
        Code ``config_vs_weights``: an array is missing, left over, or not of the size that the config declares.
    """
    parts = StoredParts(specs, arrays)
    model = model_class(config.type)[0].wired(config, parts)
    parts.finish()
    return model
