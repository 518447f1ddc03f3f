"""Models in a format of minislm's own, made once and kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import minislm
from minislm.benchmark.shapes import kept_name, model_folder, named_place
from minislm.compression.quantize import Quantize

AS_PUBLISHED = ("float16", "float32")
AS_STORED = "as stored"


def stored_folder(model: str, cache: Path, format: str) -> Path:
    """Find a model in a format, or make it.

    Parameters
    ----------
    model : str
        A shape or a model folder.
    cache : Path
        Where made ones are kept.
    format : str
        One of `AS_PUBLISHED`, for the folder of a shape; `AS_STORED`, for what `model` names; or a storage format,
        whose inputs are rounded to bytes as the rivals' are, and whose scales are those of least squared error.

    Returns
    -------
    Path
        What `minislm.load` takes.
    """
    if format == AS_STORED:
        return named_place(model)
    source, _ = model_folder(model, cache)
    if format in AS_PUBLISHED:
        return source
    folder = cache / f"{kept_name(model)}-{format}"
    if not folder.exists():
        lm, _ = minislm.compress(minislm.load(source), Quantize(format, scales="mse"))
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        minislm.save(lm, part)
        part.rename(folder)
    return folder
