"""A small language model's whole life in code that a person can read: build it, train it, compress it, run it.

Array names end in their axes, throughout the package::

    B batch          T query positions   S key positions (cache + new)   N rows, usually B*T
    D model width    F feed-forward      H query heads                   G key/value heads
    K head width     V vocabulary        L layers                        R rank
    O, I outputs and inputs of a weight  J groups along I                Z positions inside a group
    E experts        C cache slots       P packed bytes of a row         U stored values of a row
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minislm.compression.apply import compress as compress
    from minislm.dispatch import backend as backend
    from minislm.evaluation.quality import evaluate as evaluate
    from minislm.language_model import LanguageModel as LanguageModel
    from minislm.language_model import load as load
    from minislm.language_model import save as save
    from minislm.look.trace import trace as trace
    from minislm.training.train import train as train

__version__ = "0.1.0"

# Public names, found when they are first asked for, so that `import minislm` costs nothing.
EXPORTS = {
    "LanguageModel": "language_model",
    "backend": "dispatch",
    "compress": "compression.apply",
    "evaluate": "evaluation.quality",
    "load": "language_model",
    "save": "language_model",
    "trace": "look.trace",
    "train": "training.train",
}


def __getattr__(name: str) -> Any:
    if name not in EXPORTS:
        raise AttributeError(f"module 'minislm' has no attribute {name!r}")
    return getattr(importlib.import_module(f"minislm.{EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *EXPORTS])
