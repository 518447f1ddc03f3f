"""GenerationSettings in the words of Hugging Face's generation_config.json, read and written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from minislm.errors import ConfigError, UnsupportedError, UsageError, clipped
from minislm.inference.settings import GenerationSettings, is_id

# Fields that mean the same there, by the name there. What is in no table here stands under "minislm".
NAMES = {
    "max_new_tokens": "max_new_tokens",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "stop": "stop_strings",
    "n_beams": "num_beams",
    "length_penalty": "length_penalty",
    "early_stopping": "early_stopping",
    "renormalize": "renormalize_logits",
    "min_new_tokens": "min_new_tokens",
    "no_repeat_ngram": "no_repeat_ngram_size",
    "start_id": "decoder_start_token_id",
    "first_id": "forced_bos_token_id",
    "last_id": "forced_eos_token_id",
}
LISTS = {"eos_ids": "eos_token_id", "banned_ids": "bad_words_ids"}
IDS = ("decoder_start_token_id", "eos_token_id", "forced_bos_token_id", "forced_eos_token_id", "bad_words_ids")


def write_settings(settings: GenerationSettings, eos_id: int | None, pad_id: int | None) -> dict[str, Any]:
    """Say settings in the words of generation_config.json.

    Parameters
    ----------
    settings : GenerationSettings
        What to say.
    eos_id, pad_id : int or None
        The tokenizer's.

    Returns
    -------
    dict
        From which `read_settings` makes equal settings.
    """
    own = settings.to_json()
    values: dict[str, Any] = {theirs: own.pop(ours) for ours, theirs in NAMES.items()}
    values["stop_strings"] = values["stop_strings"] or None
    values["do_sample"] = values["temperature"] > 0
    if not values["do_sample"]:
        del values["temperature"]
    values["eos_token_id"] = own.pop("eos_ids") or eos_id
    values["bad_words_ids"] = [[number] for number in own.pop("banned_ids")] or None
    return {**values, "pad_token_id": pad_id, "minislm": own}


def read_settings(
    values: Mapping[str, Any], config: Mapping[str, Any], eos_id: int | None, *, apart: bool
) -> GenerationSettings:
    """Undo `write_settings`, or read what another library wrote; what has no place here is passed over.

    Parameters
    ----------
    values : mapping
        Of generation_config.json; empty without such a file.
    config : mapping
        The values of config.json, where older folders have them.
    eos_id : int or None
        The tokenizer's.
    apart : bool
        Whether the model is an encoder-decoder, so that their lengths count the token it begins with and no prompt.

    Returns
    -------
    GenerationSettings
        The settings.

    Raises
    ------
    ConfigError
        Code ``config_invalid``, with the file and its field: ids, lengths or other values that are none.
    UnsupportedError
        Code ``unsupported_config``: sequences of several tokens are banned.
    """
    older = {name: config[name] for name in IDS if name in config and name not in values}
    with _told_of("config.json"):
        GenerationSettings.from_json(found := read_fields(older, apart=apart))
    with _told_of("generation_config.json"):
        found |= read_fields(values, apart=apart)
        if found.get("eos_ids") == [eos_id]:
            del found["eos_ids"]
        if not apart:
            found.pop("start_id", None)
        if values and not values.get("do_sample"):
            found["temperature"] = 0.0
        own = values.get("minislm", {})
        if not isinstance(own, dict):
            raise ConfigError("config_invalid", f"minislm must be an object, not {clipped(own)}")
        return GenerationSettings.from_json({**found, **own})


@contextlib.contextmanager
def _told_of(file: str) -> Iterator[None]:
    """Name a file in errors, and its field in place of ours, which they begin with."""
    try:
        yield
    except UsageError as error:
        name, _, rest = str(error).partition(" ")
        raise ConfigError("config_invalid", f"{file}: {({**NAMES, **LISTS}).get(name, name)} {rest}") from error
    except (ConfigError, UnsupportedError) as error:
        raise type(error)(error.code, f"{file}: {error}") from error


def read_fields(values: Mapping[str, Any], *, apart: bool) -> dict[str, Any]:
    """Translate what is there of generation_config.json, or of a task in config.json.

    Parameters
    ----------
    values : mapping
        By their names.
    apart : bool
        As of `read_settings`.

    Returns
    -------
    dict
        Fields of GenerationSettings.

    Raises
    ------
    ConfigError, UnsupportedError
        As `read_settings`.
    """
    found = {ours: values[theirs] for ours, theirs in NAMES.items() if values.get(theirs) is not None}
    for ours, theirs in LISTS.items():
        if values.get(theirs) is not None:
            found[ours] = _ids(theirs, values[theirs])
    for ours, theirs in (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length")):
        length = values.get(theirs)
        if apart and ours not in found and length is not None:
            if type(length) is not int:
                raise ConfigError("config_invalid", f"{theirs} must be a whole number, not {clipped(length)}")
            found[ours] = max(0, length - 1)
    return found


def _ids(name: str, value: Any) -> list[Any]:
    """Return a list of ids, where one may stand for itself, or a list of lists of one."""
    ids = []
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, list) and len(item) != 1:
            raise UnsupportedError(
                "unsupported_config", f"{name} holds {clipped(item)}; minislm bans single tokens, not sequences"
            )
        ids.append(item[0] if isinstance(item, list) else item)
    if not all(map(is_id, ids)):
        raise ConfigError("config_invalid", f"{name} must hold token ids, not {clipped(value)}")
    return ids
