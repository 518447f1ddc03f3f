"""Compression: one file per Method, each a value with options and one verb, `run`.

`METHODS` lists them by the names that recipes use. Recipes are in `minislm.compression.recipe`, the report in
`minislm.compression.report`; `compress` applies a recipe to a language model.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from minislm.compression.apply import compress
from minislm.errors import unknown

__all__ = ["METHODS", "compress", "load_method"]

if TYPE_CHECKING:
    from minislm.compression.base import Method

METHODS = {
    "distil": "distil:Distil",
    "factorise": "factorise:Factorise",
    "lora": "lora:Lora",
    "low_rank": "low_rank:LowRank",
    "narrow": "narrow:Narrow",
    "prune": "prune:Prune",
    "quantization_aware": "qat:QuantizationAware",
    "quantize": "quantize:Quantize",
    "train": "finetune:Train",
}


def load_method(name: str) -> type[Method]:
    """Return the class of a method.

    Parameters
    ----------
    name : str
        A key of `METHODS`.

    Returns
    -------
    type
        A subclass of `Method`.

    Raises
    ------
    UnsupportedError
        Code ``unknown_method``, with the known ones and the nearest match.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    module, _, cls = METHODS[name].partition(":")
    found: type[Method] = getattr(importlib.import_module(f"minislm.compression.{module}"), cls)
    return found
