"""How far two models' hidden states are apart, block by block: where a translation or a compression goes wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from minislm.errors import UnsupportedError
from minislm.files.folder import CONFIG, read_json
from minislm.files.hub import cached
from minislm.layers.base import PLAIN, Context, Tape
from minislm.models.base import Model, Stack
from minislm.models.encoder import Encoder
from minislm.models.transformer import Transformer

RESULTS = "memory", "hidden"  # what the two stacks of an encoder-decoder end in; one stack alone in the last


class LayerDifference(NamedTuple):
    """One row of the table.

    Parameters
    ----------
    layer : str
        Path of a block, or ``"memory"`` for what an encoder-decoder's encoder says, ``"hidden"`` for the last hidden
        state, or ``"logits"``.
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
        Of any family.
    ids : ndarray of int, (B, T)
        Token ids; of an encoder-decoder both the source and the target.

    Returns
    -------
    dict of str to ndarray
        By path, ``"hidden"`` and, of a model that writes, ``"logits"``, in the order in which they are computed.
    """
    context = Context(source_BS=ids) if isinstance(model, Transformer) else PLAIN
    tape = Tape([*(path for stack in model.stacks for path in _paths(model, stack)), "memory"], saving=False)
    hidden = model.hidden(ids, context, tape)
    found = {**tape.seen, "hidden": hidden}
    if not isinstance(model, Encoder):
        found["logits"] = model.forward(ids, context)
    return found


def reference_states(folder: str | os.PathLike[str], model: Model, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Run a published checkpoint by the `transformers` library and keep what each block returns.

    Parameters
    ----------
    folder : path or str
        The checkpoint; or its name in the local cache of the hub.
    model : Model
        What is to be compared with it.
    ids : ndarray of int, (B, T)
        Token ids.

    Returns
    -------
    dict of str to ndarray
        As `states_of`, but for what the library shows normalized only: the last block before a final norm.

    Raises
    ------
    UnsupportedError
        Code ``needs_transformers``: the library or torch is not installed. Code ``needs_folder``: it is a GGUF file.
    """
    place = cached(folder)
    if place.is_file():
        raise UnsupportedError(
            "needs_folder",
            f"{folder} is a file, and transformers runs a published folder: name the folder that the file was made "
            "from, or let minislm run it (--layers minislm)",
        )
    try:
        import torch
        import transformers
    except ImportError as error:
        raise UnsupportedError(
            "needs_transformers",
            "the reference needs torch and transformers: pip install -e '.[oracle]' where minislm stands",
        ) from error
    values = read_json(place / CONFIG)
    name = (values.get("architectures") or ["AutoModel"])[0]
    theirs = getattr(transformers, name).from_pretrained(place, dtype=torch.float32, local_files_only=True).eval()
    reads_source = isinstance(model, Transformer)
    given = {"decoder_input_ids": torch.tensor(ids)} if reads_source else {}
    with torch.no_grad():
        said = theirs(torch.tensor(ids), **given, output_hidden_states=True)
    fields = ("encoder_hidden_states", "decoder_hidden_states") if reads_source else ("hidden_states",)
    found: dict[str, np.ndarray] = {}
    for stack, field, result in zip(model.stacks, fields, RESULTS[-len(fields) :], strict=True):
        states = [state.numpy() for state in said[field]]
        paths = [f"{stack.path}.{i}" for i in range(len(states) - 1)]
        found.update(zip(paths, states[1:], strict=True))
        found[result] = states[-1]
        if _ends_in_norm(model):
            del found[paths[-1]]
    if not isinstance(model, Encoder) and "logits" in said:
        found["logits"] = said["logits"].numpy()
    return found


def _paths(model: Model, stack: Stack) -> list[str]:
    """Name the blocks of a stack."""
    return [f"{stack.path}.{i}" for i in range(len(getattr(model.config, stack.sizes)))]


def _ends_in_norm(model: Model) -> bool:
    """Tell whether a norm comes between the last block of a stack and what is read of it."""
    if isinstance(model, Transformer):
        return model.config.norm_place == "before"
    return not isinstance(model, Encoder)


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
