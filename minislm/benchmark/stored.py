"""Models in a format of minislm's own, made once and kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import minislm
from minislm.benchmark.shapes import model_folder
from minislm.compression.quantize import Quantize

ACTIVATIONS = {"int4-32": "int8-32", "int8": "int8-row"}
"""How activations enter the products of a format, which is also what the rivals' types of as many bits do."""
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
        One of `ACTIVATIONS`; of `AS_PUBLISHED`, for the folder of a shape; or `AS_STORED`, for what `model` names.

    Returns
    -------
    Path
        What `minislm.load` takes.
    """
    if format == AS_STORED:
        return Path(model)
    source, _ = model_folder(model, cache)
    if format in AS_PUBLISHED:
        return source
    folder = cache / f"{Path(model).name}-{format}"
    if not folder.exists():
        lm, _ = minislm.compress(minislm.load(source), Quantize(format, activations=ACTIVATIONS[format]))
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        minislm.save(lm, part)
        part.rename(folder)
    return folder
