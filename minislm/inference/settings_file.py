"""GenerationSettings in the words of Hugging Face's generation_config.json, read and written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any

from minislm.errors import ConfigError, ModelFileError, UnsupportedError, UsageError, clipped
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
LENGTHS = {"max_new_tokens": "max_length", "min_new_tokens": "min_length"}  # which count more than new tokens
SAMPLING = ("top_k", "top_p", "min_p")
DEFAULT_TOP_K = 50  # of transformers
UNSAID = {"max_length": 20}  # its default, which its older versions wrote into every config.json
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
    if isinstance(settings, RefusedSettings):
        return dict(settings.written)
    own = settings.to_json()
    values: dict[str, Any] = {theirs: own.pop(ours) for ours, theirs in NAMES.items()}
    values["stop_strings"] = values["stop_strings"] or None
    values["do_sample"] = values["temperature"] > 0
    if not values["do_sample"]:
        del values["temperature"]
    values["eos_token_id"] = own.pop("eos_ids") or eos_id
    values["bad_words_ids"] = [[number] for number in own.pop("banned_ids")] or None
    return {**values, "pad_token_id": pad_id, "minislm": own}


class RefusedSettings(GenerationSettings):
    """Settings of files that say what cannot be done; the model opens all the same, for all that needs none.

    Its fields are those that can be kept, one by one.

    Parameters
    ----------
    read : callable
        Reads the files again, but for changes by our names.
    written : mapping
        What they say, to be written again.
    **kept : Any
        Its fields.
    """

    read: Callable[[Mapping[str, Any]], GenerationSettings]
    written: Mapping[str, Any]

    def __init__(
        self, read: Callable[[Mapping[str, Any]], GenerationSettings], written: Mapping[str, Any], **kept: Any
    ) -> None:
        super().__init__(**kept)
        object.__setattr__(self, "read", read)  # frozen, as its base
        object.__setattr__(self, "written", written)

    def replaced(self, **changes: Any) -> GenerationSettings:
        """Return the settings if the changes stand in for what cannot be done.

        Parameters
        ----------
        **changes : Any
            As of `GenerationSettings.replaced`.

        Returns
        -------
        GenerationSettings
            What the files say, changed.

        Raises
        ------
        UsageError
            As `GenerationSettings.replaced`, for the changes alone.
        ModelFileError
            Code ``config_invalid``, with the file and its field: ids, lengths or other values that are none, or two
            that exclude each other.
        UnsupportedError
            Code ``unsupported_config``: sequences of several tokens are banned.
        """
        GenerationSettings.from_json(changes)
        return self.read(changes)


def read_settings(
    values: Mapping[str, Any], config: Mapping[str, Any], eos_id: int | None, *, apart: bool, folder: str = ""
) -> GenerationSettings:
    """Undo `write_settings`, or read what another library wrote; what has no place here is passed over.

    What generation_config.json does not say means what it means to transformers, but for the length.

    Parameters
    ----------
    values : mapping
        Of generation_config.json; empty without such a file.
    config : mapping
        The values of config.json, where older folders have all of them, or the ids.
    eos_id : int or None
        The tokenizer's.
    apart : bool
        Whether the model is an encoder-decoder, so that their lengths count the token it begins with and no prompt.
    folder : str
        Where the files are, for errors.

    Returns
    -------
    GenerationSettings
        The settings, or `RefusedSettings`.
    """
    read = partial(_read, values, config, eos_id, apart=apart, folder=folder)
    try:
        return read({})
    except (ModelFileError, UnsupportedError):
        said = {**_older(values, config), **values}
        return RefusedSettings(read, said, **_kept(said, apart=apart))


def _read(
    values: Mapping[str, Any],
    config: Mapping[str, Any],
    eos_id: int | None,
    changes: Mapping[str, Any],
    *,
    apart: bool,
    folder: str,
) -> GenerationSettings:
    """Read what the files say, but for the changes, and make these."""
    found: dict[str, Any] = {}
    for file, part in (("config.json", _older(values, config)), ("generation_config.json", values)):
        if not part:
            continue
        with _told_of(os.path.join(folder, file)):
            found |= read_fields(part, apart=apart, without=changes)
            if found.get("eos_ids") == [eos_id]:
                del found["eos_ids"]
            if not apart:
                found.pop("start_id", None)
            if part is values or part.keys() & {"do_sample", "num_beams"}:
                found = {"top_k": DEFAULT_TOP_K, "temperature": 1.0, **found}
                if part.get("do_sample") is not True:
                    found["temperature"] = 0.0
            if not isinstance(own := part.get("minislm", {}), dict):
                raise ConfigError("config_invalid", f"minislm must be an object, not {clipped(own)}")
            found = {**found, **own, **changes}
            if found.get("temperature") == 0.0:  # what they do not look at may be anything
                found = {name: value for name, value in found.items() if name not in SAMPLING or _fits(name, value)}
            GenerationSettings.from_json(found)
    return GenerationSettings.from_json({**found, **changes})


def _older(values: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what config.json says of generation: all, if no other file does, or the ids that the other one lacks."""
    names = IDS if values else (*NAMES.values(), *LISTS.values(), *LENGTHS.values(), "do_sample")
    older = {name: config[name] for name in names if config.get(name) is not None and name not in values}
    return {name: value for name, value in older.items() if UNSAID.get(name) != value}


def _kept(said: Mapping[str, Any], *, apart: bool) -> dict[str, Any]:
    """Return the fields that can be kept, one by one."""
    kept: dict[str, Any] = {"temperature": 0.0}
    for name, value in said.items():
        with contextlib.suppress(ConfigError, UnsupportedError, UsageError):
            more = {**kept, **read_fields({name: value}, apart=apart)}
            GenerationSettings.from_json(more)
            kept = more
    return kept


def _fits(name: str, value: Any) -> bool:
    """Tell whether a field may have a value."""
    try:
        GenerationSettings.from_json({name: value})
    except UsageError:
        return False
    return True


@contextlib.contextmanager
def _told_of(file: str) -> Iterator[None]:
    """Name a file in errors, its field in place of ours, which they begin with, and the way out."""
    advice = "mend the file, or give other values when you generate"
    try:
        yield
    except UsageError as error:
        name, _, rest = str(error).partition(" ")
        told = f"{file}: {({**NAMES, **LISTS}).get(name, name)} {rest}; {advice}"
        raise ModelFileError("config_invalid", told) from error
    except ConfigError as error:
        raise ModelFileError(error.code, f"{file}: {error}; {advice}") from error
    except UnsupportedError as error:
        raise UnsupportedError(error.code, f"{file}: {error}; {advice}") from error


def read_fields(values: Mapping[str, Any], *, apart: bool, without: Collection[str] = ()) -> dict[str, Any]:
    """Translate what is there of generation_config.json, or of a task in config.json.

    Parameters
    ----------
    values : mapping
        By their names.
    apart : bool
        As of `read_settings`.
    without : collection of str
        Fields of GenerationSettings that are not asked for.

    Returns
    -------
    dict
        Fields of GenerationSettings.

    Raises
    ------
    ConfigError
        Code ``config_invalid``: ids or lengths that are none.
    UnsupportedError
        Code ``unsupported_config``: sequences of several tokens are banned.
    """
    said = {name: value for name, value in values.items() if value is not None}
    found = {ours: said[theirs] for ours, theirs in NAMES.items() if theirs in said and ours not in without}
    if isinstance(found.get("stop"), str):
        found["stop"] = [found["stop"]]
    if found.get("top_p") == 0:  # the likeliest token alone
        found |= {"top_p": 1.0, "top_k": 1}
    for ours, theirs in LISTS.items():
        if theirs in said and ours not in without:
            found[ours] = _ids(theirs, said[theirs])
    for ours, theirs in LENGTHS.items():
        length = said.get(theirs)
        if apart and ours not in (*found, *without) and length is not None:
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
