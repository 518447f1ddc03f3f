"""How far two models' hidden states are apart, block by block: where a translation or a compression goes wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minislm.errors import UnsupportedError
from minislm.layers.base import PLAIN, Tape
from minislm.models.base import Model
from minislm.models.encoder import Encoder


class LayerDifference(NamedTuple):
    """One row of the table.

    Parameters
    ----------
    layer : str
        Path of a block, or ``"hidden"`` for the last hidden state, or ``"logits"``.
    relative : float
        Root mean square of the difference over that of the reference.
    largest : float
        Largest difference over the reference's largest number.
    cosine : float
        Least cosine of two positions' vectors.
    """

    layer: str
    relative: float
    largest: float
    cosine: float


def states_of(model: Model, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Run a model and keep what each block returns.

    Parameters
    ----------
    model : Model
        A decoder or an encoder.
    ids : ndarray of int, (B, T)
        Token ids.

    Returns
    -------
    dict of str to ndarray
        By path, ``"hidden"`` and, of a decoder, ``"logits"``, in the order in which they are computed.

    Raises
    ------
    UnsupportedError
        Code ``not_one_stack``: the model has several stacks of blocks.
    """
    if len(model.stacks) > 1:
        raise UnsupportedError("not_one_stack", f"layers of a {model.config.type} cannot be compared yet")
    stack = model.stacks[0]
    paths = [f"{stack.path}.{i}" for i in range(len(getattr(model.config, stack.sizes)))]
    tape = Tape([*paths, "final_norm"], saving=False)
    hidden = model.hidden(ids, PLAIN, tape)
    found = {path: tape.seen[path] for path in paths} | {"hidden": hidden}
    if not isinstance(model, Encoder):
        found["logits"] = model.forward(ids)
    return found


def reference_states(folder: str | os.PathLike[str], ids: np.ndarray) -> dict[str, np.ndarray]:
    """Run a published checkpoint by the `transformers` library and keep what each block returns.

    Parameters
    ----------
    folder : path
        The checkpoint.
    ids : ndarray of int, (B, T)
        Token ids.

    Returns
    -------
    dict of str to ndarray
        As `states_of`, but for what the library shows normalized only: the last block of a decoder.

    Raises
    ------
    UnsupportedError
        Code ``needs_transformers``: the library or torch is not installed.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise UnsupportedError(
            "needs_transformers", "comparing with the reference needs: pip install 'minislm[oracle]'"
        ) from error
    values: Any = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    name = (values.get("architectures") or ["AutoModelForCausalLM"])[0]
    model = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    with torch.no_grad():
        said = model(torch.tensor(ids), output_hidden_states=True)
    states = [state.numpy() for state in said.hidden_states]
    found = {f"blocks.{i}": state for i, state in enumerate(states[1:])}
    found["hidden"] = states[-1]
    if "CausalLM" in name or "LMHead" in name:
        del found[f"blocks.{len(states) - 2}"]
        found["logits"] = said.logits.numpy()
    return found


def layer_differences(own: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> list[LayerDifference]:
    """Compare what two models returned, where both tell it.

    Parameters
    ----------
    own, reference : mapping of str to ndarray, (B, T, any)
        Of `states_of` or `reference_states`.

    Returns
    -------
    list of LayerDifference
        In the order of `own`.

    Raises
    ------
    UnsupportedError
        Code ``layers_differ``: a layer has another width.
    """
    found = []
    for layer in (name for name in own if name in reference):
        x, y = own[layer].astype(np.float64), reference[layer].astype(np.float64)
        if x.shape != y.shape:
            raise UnsupportedError("layers_differ", f"{layer} is {x.shape} in the one and {y.shape} in the other")
        norms = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
        cosines = np.vecdot(x, y) / np.maximum(norms, np.finfo(np.float64).tiny)
        scale, most = np.sqrt(np.mean(np.square(y))), np.abs(y).max(initial=0.0)
        found.append(
            LayerDifference(
                layer,
                float(np.sqrt(np.mean(np.square(x - y))) / scale) if scale else 0.0,
                float(np.abs(x - y).max(initial=0.0) / most) if most else 0.0,
                float(cosines.min(initial=1.0)),
            )
        )
    return found
