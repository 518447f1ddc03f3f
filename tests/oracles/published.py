"""Small random models as transformers makes them, saved as published folders: what the oracle tests open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers

from minislm.text.tokenizer import Tokenizer


class Case(NamedTuple):
    """A model of another library.

    Parameters
    ----------
    model : str
        Its class in transformers.
    config : str
        The class of its config.
    values : dict
        What the config is made of.
    """

    model: str
    config: str
    values: dict[str, Any]


def made(case: Case, seed: int = 0) -> Any:
    """Make the model, with parameters large enough that every part of it matters."""
    config = getattr(transformers, case.config)(**case.values)
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    model = getattr(transformers, case.model)(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:  # a table of sines, which no file holds
                continue
            parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.ndim == 1 else 0.15))
            assert parameter.isfinite().all(), name
    return model


def folder(model: Any, path: Path, **options: Any) -> Path:
    """Save it as a folder that has a tokenizer of as many tokens as it knows ids."""
    model.save_pretrained(path, **options)
    alphabet = "".join(chr(0x4E00 + i) for i in range(model.config.vocab_size))
    Tokenizer.train([alphabet], kind="characters").save(path / "tokenizer.json")
    return path


Maker = Callable[[], Case]
