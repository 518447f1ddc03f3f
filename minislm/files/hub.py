"""Names of the Hugging Face hub, resolved in the cache on this machine; nothing is ever fetched."""

from __future__ import annotations

import os
import re
from pathlib import Path

from minislm.errors import NotFoundError, UsageError, clipped
from minislm.files.durable import standing

NAME = re.compile(r"(?:[\w-][\w.-]*/)?[\w-][\w.-]*")  # the hub's first models have names of one word
FILES = (".gguf", ".safetensors", ".bin", ".pt", ".json")  # a name that ends so is meant as a file


def cached(path: str | os.PathLike[str]) -> Path:
    """Find the place of a model: a path that exists, or else a name such as ``org/model`` in the local cache.

    Parameters
    ----------
    path : path or str
        Either.

    Returns
    -------
    Path
        The path as it came, or the snapshot's folder in the cache.

    Raises
    ------
    NotFoundError
        Code ``model_not_found``: no path, and a name of the hub that is not in the cache.
    UsageError
        Code ``bad_option``: neither a path nor a name.
    """
    if not isinstance(path, str | os.PathLike):
        raise UsageError("bad_option", f"expected the path or the name of a model, not {clipped(path)}")
    place = Path(path)
    if standing(place).exists() or not isinstance(path, str) or not NAME.fullmatch(path):
        return place
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(path, local_files_only=True, allow_patterns=["config.json"]))
    except HFValidationError:  # no name that the hub allows
        return place
    except LocalEntryNotFoundError:
        pass
    if place.suffix.lower() in FILES or ("/" in path and place.parent.is_dir()):
        return place
    raise NotFoundError(
        "model_not_found",
        f"there is no folder {path}, and the hub's cache on this machine does not hold such a model. minislm "
        f"downloads nothing by itself; fetch it with: hf download {path}",
    )
