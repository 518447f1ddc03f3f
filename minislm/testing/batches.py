"""Batches for any model: token ids, and a Context with whatever else its family reads."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from minislm.inference.cache import KVCache
from minislm.layers.base import PLAIN, Context
from minislm.models.base import Model
from minislm.models.encoder import EncoderConfig
from minislm.models.transformer import TransformerConfig


def sample_ids(model: Model, n_rows: int, n_positions: int, seed: int = 0) -> np.ndarray:
    """Draw token ids for a model.

    Parameters
    ----------
    model : Model
        Whose vocabulary.
    n_rows, n_positions : int
        B and T.
    seed : int
        The ids are a function of it.

    Returns
    -------
    ndarray of int64, (B, T)
        Token ids.
    """
    return np.random.default_rng(seed).integers(0, model.config.vocab_size, (n_rows, n_positions))


def sample_context(model: Model, n_rows: int, n_positions: int, seed: int = 0, *, padding: int = 0) -> Context:
    """Draw what a model reads besides token ids.

    Parameters
    ----------
    model : Model
        Of any family.
    n_rows, n_positions : int
        B and T of the ids.
    seed : int
        Everything is a function of it.
    padding : int
        Positions at the end of the first row, and of its source, that are padding.

    Returns
    -------
    Context
        Lengths; types of tokens for an encoder that tells texts apart; for an encoder-decoder a source, one token
        shorter than the ids.
    """
    config: Any = model.config
    rng = np.random.default_rng([seed, 1])
    lengths_B = np.full(n_rows, n_positions)
    lengths_B[0] -= padding
    context = Context(lengths_B=lengths_B)
    if isinstance(config, EncoderConfig) and config.n_types:
        types_BT = rng.integers(0, config.n_types, (n_rows, n_positions))
        return dataclasses.replace(context, types_BT=types_BT)
    if isinstance(config, TransformerConfig):
        source_BS = rng.integers(0, config.source.vocab_size, (n_rows, n_positions - 1))
        return dataclasses.replace(context, source_BS=source_BS, source_lengths_B=lengths_B - 1)
    return context


def row_alone(ids_BT: np.ndarray, context: Context, row: int) -> tuple[np.ndarray, Context]:
    """Cut one row out of a batch, without its padding.

    Parameters
    ----------
    ids_BT : ndarray of int64, (B, T)
        Token ids.
    context : Context
        From `sample_context`.
    row : int
        Which.

    Returns
    -------
    ids : ndarray of int64, (1, length)
        Its tokens.
    context : Context
        What belongs to it, without lengths.
    """

    def cut(array: np.ndarray | None, lengths_B: np.ndarray | None) -> np.ndarray | None:
        return None if array is None or lengths_B is None else array[row : row + 1, : lengths_B[row]]

    lengths_B, source_lengths_B = context.lengths_B, context.source_lengths_B
    ids = cut(ids_BT, lengths_B)
    assert ids is not None
    return ids, Context(types_BT=cut(context.types_BT, lengths_B), source_BS=cut(context.source_BS, source_lengths_B))


def said(model: Model, ids_BT: np.ndarray, context: Context = PLAIN) -> dict[str, np.ndarray]:
    """Run a model, and return what it says under names, as an encoder does.

    Parameters
    ----------
    model : Model
        Of any family.
    ids_BT : ndarray of int64, (B, T)
        Token ids.
    context : Context
        The pass.

    Returns
    -------
    dict of str to ndarray
        The results by name; of a decoder or encoder-decoder, its logits.
    """
    y = model.forward(ids_BT, context)
    return y if isinstance(y, dict) else {"logits": y}


def new_cache(model: Model, slots: int, capacity: int, source_capacity: int = 0) -> KVCache:
    """Make a KV cache with all its slots claimed.

    Parameters
    ----------
    model : Model
        Whose layers.
    slots, capacity : int
        Sequences, and positions of each.
    source_capacity : int
        Positions of each source of an encoder-decoder.

    Returns
    -------
    KVCache
        Empty.
    """
    cache = KVCache.create(model.config.layers, slots, capacity, source_capacity=source_capacity)
    for _ in range(slots):
        cache.claim()
    return cache
