"""GGUF files as models: the published folder that a file was made from, in memory."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minislm.errors import ModelFileError, UnsupportedError, clipped, unknown_architecture
from minislm.files import gguf
from minislm.files.gguf_names import ARCHITECTURES, PASSED_OVER, Architecture, Settings, Tensors
from minislm.files.gguf_tokenizer import tokenizer_of
from minislm.weights.blocks import Blocks


@dataclass(frozen=True)
class GGUFModel:
    """What a model folder would hold.

    Parameters
    ----------
    architecture : str
        What the file calls it.
    config : dict
        The values of config.json.
    tensors : dict of str to ndarray or Blocks
        By the names of the folder. An array has the shape that it has in the folder (GPT-2's matrices are inputs x
        outputs there); a Weight is outputs x inputs, as always.
    tokenizer : str
        The text of tokenizer.json.
    roles : dict
        The values of tokenizer_config.json: ``bos_token`` and the like, ``add_bos_token``, ``add_eos_token``,
        ``chat_template``; what the file does not say is missing.
    generation : dict
        The values of generation_config.json.
    """

    architecture: str
    config: dict[str, Any]
    tensors: dict[str, np.ndarray | Blocks]
    tokenizer: str
    roles: dict[str, Any]
    generation: dict[str, Any]


def read_gguf(path: str | os.PathLike[str]) -> GGUFModel:
    """Read a GGUF file as the published folder that it was made from.

    Parameters
    ----------
    path : path
        The file; its tensors are mapped. Query and key projections of LLaMA are copied, their rows reordered.

    Returns
    -------
    GGUFModel
        Config, tensors, tokenizer and settings.

    Raises
    ------
    NotFoundError
        As `gguf.read`.
    ModelFileError
        As `gguf.read`; code ``config_invalid``: a setting is missing or of another type; ``config_vs_weights``:
        settings and tensors do not fit together; ``tokenizer_invalid``.
    UnsupportedError
        As `gguf.read`; code ``unknown_architecture``; ``unsupported_config``: a setting or a tensor asks for something
        that is not run; ``unsupported_tokenizer``.
    """
    file, origin = gguf.read(path), str(Path(path))
    name = file.settings.get("general.architecture")
    if type(name) is not str:
        raise ModelFileError("config_invalid", f"{origin} does not say what architecture it holds")
    if name not in ARCHITECTURES:
        raise unknown_architecture(clipped(name)[1:-1], ARCHITECTURES)
    architecture, settings = ARCHITECTURES[name], Settings(file.settings, name, origin)
    config = architecture.config(settings, file.tensors)
    tokenizer, roles, generation = tokenizer_of(file.settings, origin)
    config |= {"vocab_size": _vocab_size(settings, file.tensors), **generation}
    settings.check_all_read()
    return GGUFModel(name, config, _named(architecture, config, file.tensors, origin), tokenizer, roles, generation)


def _vocab_size(settings: Settings, tensors: Tensors) -> int:
    """Count the rows of the embedding, which are the tokens of the model."""
    table = tensors.get("token_embd.weight")
    n_rows = table.shape[0] if table is not None and len(table.shape) == 2 else 0
    if not n_rows or settings.whole("vocab_size", n_rows) != n_rows:
        raise ModelFileError(
            "config_vs_weights", f"{settings.origin}: token_embd.weight must have a row for each token of the model"
        )
    return int(n_rows)


def _named(
    architecture: Architecture, config: dict[str, Any], tensors: Tensors, origin: str
) -> dict[str, np.ndarray | Blocks]:
    """Give the tensors the names and the shapes of the folder."""
    found: dict[str, np.ndarray | Blocks] = {}
    for name, tensor in tensors.items():
        stem, _, kind = name.rpartition(".")
        layer = re.findall(r"^blk\.([0-9]+)\.", stem)
        pattern = stem.replace(layer[0], "{}", 1) if layer else stem
        if pattern in PASSED_OVER:
            continue
        theirs = architecture.fused.get(pattern) or tuple(filter(None, [architecture.names.get(pattern)]))
        if kind not in ("weight", "bias") or not theirs:
            raise UnsupportedError(
                "unsupported_config",
                f"{origin}: tensor {clipped(name)} has no place in the models that minislm runs of this architecture",
            )
        if not tensor.shape or tensor.shape[0] % len(theirs):
            raise ModelFileError(
                "config_vs_weights", f"{origin}: tensor {clipped(name)} cannot have the shape {tensor.shape}"
            )
        n_rows = tensor.shape[0]
        if heads := architecture.rotated.get(pattern):
            tensor = _taken(tensor, _neighbours(n_rows, config[heads], name, origin))
        size = n_rows // len(theirs)
        for place, each in enumerate(theirs):
            full = f"{each.format(*layer)}.{kind}"
            if full in found:
                raise ModelFileError("config_vs_weights", f"{origin}: two tensors stand for {clipped(full)}")
            part = tensor if len(theirs) == 1 else _taken(tensor, slice(place * size, (place + 1) * size))
            found[full] = part.T if isinstance(part, np.ndarray) and full.endswith(architecture.transposed) else part
    return found


def _neighbours(n_rows: int, n_heads: int, name: str, origin: str) -> np.ndarray:
    """Say where each row of a projection stands in the file, where the halves of a head lie interleaved."""
    if n_rows % (2 * n_heads):
        raise ModelFileError(
            "config_vs_weights",
            f"{origin}: tensor {clipped(name)} has {n_rows} rows, which {n_heads} heads cannot share",
        )
    order: np.ndarray = np.arange(n_rows).reshape(n_heads, -1, 2).swapaxes(1, 2).reshape(-1)
    return order


def _taken(tensor: np.ndarray | Blocks, rows: np.ndarray | slice) -> np.ndarray | Blocks:
    """Return some rows; of a range, a view."""
    return replace(tensor, blocks=tensor.blocks[rows]) if isinstance(tensor, Blocks) else tensor[rows]
