"""LanguageModel: a model, its tokenizer and its generation settings; what `load` returns and `save` writes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minislm import models
from minislm.errors import DataError, MinislmError, ModelFileError, UnsupportedError, UsageError, clipped, unknown
from minislm.files.folder import ModelFolder, read_folder, write_folder
from minislm.inference import decoding
from minislm.inference.program import Program
from minislm.inference.settings import GenerationSettings
from minislm.layers.base import PLAIN, Context
from minislm.models.base import Model
from minislm.text.tokenizer import Tokenizer

FORMAT_VERSION = 1

# GenerationSettings that generation_config.json of Hugging Face knows, with the name there. The temperature is 0 where
# do_sample is false; what is not in this table stands under "minislm".
GENERATION_NAMES = {
    "max_new_tokens": "max_new_tokens",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "stop": "stop_strings",
}


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A model with its tokenizer: text in, text out.

    Parameters
    ----------
    model : Model
        From token ids to logits.
    tokenizer : Tokenizer
        From text to token ids; with at most as many tokens as the model.
    settings : GenerationSettings
        What `generate` does unless told otherwise.
    history : tuple of dict
        The compression recipes that made the model, first to last.
    """

    model: Model
    tokenizer: Tokenizer
    settings: GenerationSettings = field(default_factory=GenerationSettings)
    history: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.tokenizer.vocab_size > self.model.config.vocab_size:
            raise ModelFileError(
                "tokenizer_invalid",
                f"the tokenizer has {self.tokenizer.vocab_size} tokens, and the model knows only "
                f"{self.model.config.vocab_size}; use the tokenizer that the model was trained with",
            )

    def generate(self, prompt: str | Sequence[int], **options: Any) -> decoding.Generation:
        """Continue a text.

        Parameters
        ----------
        prompt : str or sequence of int
            Text, or token ids.
        **options : Any
            Fields of `GenerationSettings` that are to differ from `settings`.

        Returns
        -------
        Generation
            The new text, the new ids, why it stopped, and how fast it was.

        Raises
        ------
        GenerationError, DataError, UsageError
            As `inference.decoding.generate`.
        """
        return self.generate_batch([prompt], **options)[0]

    def generate_batch(self, prompts: Sequence[str | Sequence[int]], **options: Any) -> list[decoding.Generation]:
        """Continue several texts of any lengths together, each as it would be alone.

        Parameters
        ----------
        prompts : sequence of str or of sequences of int
            Texts, or token ids.
        **options : Any
            Fields of `GenerationSettings` that are to differ from `settings`.

        Returns
        -------
        list of Generation
            One for each prompt.

        Raises
        ------
        GenerationError, DataError, UsageError
            As `inference.decoding.generate`.
        """
        return decoding.generate(Program.of(self.model), self.tokenizer, prompts, self.settings.replaced(**options))

    def stream(self, prompt: str | Sequence[int], **options: Any) -> decoding.Stream:
        """Continue a text and give out the pieces as they come.

        Parameters
        ----------
        prompt : str or sequence of int
            Text, or token ids.
        **options : Any
            Fields of `GenerationSettings` that are to differ from `settings`.

        Returns
        -------
        Stream
            Iterate over it for the pieces; its `result` is what `generate` would have returned.

        Raises
        ------
        GenerationError, DataError, UsageError
            As `inference.decoding.generate`.
        """
        return decoding.Stream(Program.of(self.model), self.tokenizer, prompt, self.settings.replaced(**options))

    def logits(self, ids: Any, mask: Any = None) -> np.ndarray:
        """Return the logits of the token after each position.

        Parameters
        ----------
        ids : array of int, (T,) or (B, T)
            Token ids.
        mask : array of bool, as `ids`, optional
            False where a row is padded at its end. None: nowhere.

        Returns
        -------
        ndarray of float32, (T, V) or (B, T, V)
            Logits; those of padding mean nothing.

        Raises
        ------
        DataError
            Code ``bad_token_ids``.
        UsageError
            Code ``bad_mask``.
        GenerationError
            Code ``context_length_exceeded``.
        """
        return _rows(self.model.forward, ids, mask)

    def encode(self, ids: Any, mask: Any = None) -> np.ndarray:
        """Return the last hidden state of each position.

        Parameters
        ----------
        ids : array of int, (T,) or (B, T)
            Token ids.
        mask : array of bool, as `ids`, optional
            False where a row is padded at its end. None: nowhere.

        Returns
        -------
        ndarray of float32, (T, D) or (B, T, D)
            What the head reads; that of padding means nothing.

        Raises
        ------
        DataError, UsageError, GenerationError
            As `logits`.
        """
        return _rows(self.model.hidden, ids, mask)


def load(path: str | os.PathLike[str]) -> LanguageModel:
    """Load a model folder: nothing of it is executed, and its weights are mapped, not read.

    Parameters
    ----------
    path : path
        A folder that `save` wrote.

    Returns
    -------
    LanguageModel
        Its matrices are read from the file as they are used.

    Raises
    ------
    NotFoundError
        Code ``model_not_found``.
    ModelFileError
        Codes of `files.folder.read_folder` for damaged files; ``config_invalid``, ``config_vs_weights`` and
        ``tokenizer_invalid`` for files that contradict themselves or each other.
    ConfigError
        Code ``config_invalid``: no possible model.
    UnsupportedError
        Codes ``unknown_architecture``, ``unknown_weight``, ``unsupported_version`` and the like.
    """
    folder = read_folder(path)
    own = folder.config.get("minislm")
    if own is None:
        raise unknown("architecture", str(folder.config.get("model_type"))[:80], models.MODELS)
    version = _field(path, own, "version", int)
    if version != FORMAT_VERSION:
        raise UnsupportedError(
            "unsupported_version",
            f"{path} has format version {version}; this minislm reads {FORMAT_VERSION}. Update it",
        )
    _, config_class = models.model_class(_field(path, own, "type", str))
    config = config_class.from_json(_field(path, own, "config", dict))
    specs = _field(path, own, "weights", dict)
    model = models.build(config, {name: _field(path, specs, name, dict) for name in specs}, folder.arrays)
    tokenizer = Tokenizer.from_json(folder.tokenizer, origin=os.path.join(path, "tokenizer.json"))
    history = _field(path, own, "history", list)
    return LanguageModel(model, tokenizer, _settings(path, folder.generation), tuple(history))


def save(lm: LanguageModel, path: str | os.PathLike[str]) -> None:
    """Write a model folder, whole or not at all.

    Parameters
    ----------
    lm : LanguageModel
        What to write.
    path : path
        Where. A model that stands there is replaced, even the one that `lm` was loaded from.

    Raises
    ------
    UsageError
        Code ``not_a_model_folder``: something else stands there.
    ModelFileError
        Code ``disk_full`` or ``write_failed``; `path` is what it was, or whole and new.
    """
    config = lm.model.config
    own = {
        "version": FORMAT_VERSION,
        "type": config.type,
        "config": config.to_json(),
        "weights": {name: spec for name, spec in lm.model.specs().items() if spec["type"] != "dense"},
        "history": list(lm.history),
    }
    write_folder(
        path,
        ModelFolder(
            {"model_type": f"minislm_{config.type}", "minislm": own},
            lm.model.arrays(),
            lm.tokenizer.to_json(),
            _generation_config(lm),
        ),
    )


def _generation_config(lm: LanguageModel) -> dict[str, Any]:
    """Say the settings in Hugging Face's words."""
    own = lm.settings.to_json()
    values: dict[str, Any] = {theirs: own.pop(ours) for ours, theirs in GENERATION_NAMES.items()}
    values["stop_strings"] = values["stop_strings"] or None
    values["do_sample"] = values["temperature"] > 0
    if not values["do_sample"]:
        del values["temperature"]
    return {**values, "eos_token_id": lm.tokenizer.eos_id, "minislm": own}


def _settings(path: str | os.PathLike[str], values: Mapping[str, Any]) -> GenerationSettings:
    """Undo `_generation_config`; what Hugging Face's words have no place for here is passed over."""
    found = {ours: values[theirs] for ours, theirs in GENERATION_NAMES.items() if values.get(theirs) is not None}
    if values and not values.get("do_sample"):
        found["temperature"] = 0.0
    try:
        return GenerationSettings.from_json({**found, **values.get("minislm", {})})
    except (MinislmError, TypeError) as error:
        raise ModelFileError("config_invalid", f"{os.path.join(path, 'generation_config.json')}: {error}") from error


def _field(path: str | os.PathLike[str], own: Any, name: str, kind: type) -> Any:
    """Return a field of config.json's minislm section, or of an object in it."""
    value = own.get(name) if isinstance(own, dict) else None
    if type(value) is not kind:
        raise ModelFileError(
            "config_invalid",
            f"{os.path.join(path, 'config.json')}: {clipped(name)} must be a {kind.__name__}, not {clipped(value)}",
        )
    return value


def _rows(function: Callable[[np.ndarray, Context], np.ndarray], ids: Any, mask: Any) -> np.ndarray:
    """Run a model over one row or several."""
    try:
        ids = np.asarray(ids)
    except ValueError as error:
        raise DataError("bad_token_ids", "rows must have one length; pad them at the end and pass a mask") from error
    context = PLAIN if mask is None else Context(lengths_B=_lengths(np.asarray(mask), ids.shape))
    return function(ids, context) if ids.ndim != 1 else function(ids[None], context)[0]


def _lengths(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return how many positions of each row are valid."""
    lengths_B: np.ndarray = np.atleast_1d(mask.astype(bool).sum(-1))
    if mask.shape != shape or not np.array_equal(np.atleast_2d(mask), np.arange(shape[-1]) < lengths_B[:, None]):
        raise UsageError("bad_mask", f"a mask must have the shape {shape} of the ids; true, then false along each row")
    return lengths_B
