"""Names of the Hugging Face hub, resolved in the cache on this machine; nothing is ever fetched."""

from __future__ import annotations

import os
import re
from pathlib import Path

from minislm.errors import NotFoundError, UsageError, clipped

NAME = re.compile(r"[\w.-]+/[\w.-]+")


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
        Code ``model_not_found``: a name of the hub that is not in the cache.
    UsageError
        Code ``bad_option``: neither a path nor a name.
    """
    if not isinstance(path, str | os.PathLike):
        raise UsageError("bad_option", f"expected the path or the name of a model, not {clipped(path)}")
    place = Path(path)
    if place.exists() or not isinstance(path, str) or not NAME.fullmatch(path) or place.parent.is_dir():
        return place
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(path, "config.json")
    if not isinstance(config, str):
        raise NotFoundError(
            "model_not_found",
            f"there is no folder {path}, and the hub's cache on this machine does not hold such a model. minislm "
            f"downloads nothing by itself; fetch it with: hf download {path}",
        )
    return Path(config).parent
