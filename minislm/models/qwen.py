"""Qwen 2.5 and Qwen 3, as published: LLaMA's build with biases of queries, keys and values, or with their norms.

Qwen Team (2024), arXiv 2412.15115; Qwen Team (2025), arXiv 2505.09388.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from minislm.config import LayerSizes
from minislm.models import llama
from minislm.models.decoder import DecoderConfig
from minislm.models.fields import Fields
from minislm.models.published import Published


def windowed_layers(fields: Fields) -> tuple[LayerSizes, ...]:
    """Read the blocks, of which those after `max_window_layers` may see a window only.

    Parameters
    ----------
    fields : Fields
        Of config.json.

    Returns
    -------
    tuple of LayerSizes
        Of each block.
    """
    sizes = llama.sizes_of(fields)
    slides = fields.flag("use_sliding_window", False)
    window, first = fields.size("sliding_window", None) if slides else None, fields.whole("max_window_layers", 28)
    kinds = llama.layer_kinds(fields, lambda i: llama.LAYER_KINDS[slides and i >= first])
    return tuple(replace(sizes, window=window if kind == llama.WINDOWED else None) for kind in kinds)


def windows_said(config: DecoderConfig) -> dict[str, Any]:
    """Say which blocks see a window only; undoes `windowed_layers`.

    Parameters
    ----------
    config : DecoderConfig
        The model.

    Returns
    -------
    dict
        Values of config.json.
    """
    windows = [sizes.window for sizes in config.layers]
    window = next((window for window in windows if window is not None), None)
    return {
        "use_sliding_window": window is not None,
        "sliding_window": window,
        "max_window_layers": config.n_layers,
        "layer_types": [llama.LAYER_KINDS[window is not None] for window in windows],
    }


def read(fields: Fields, tensors: Collection[str]) -> DecoderConfig:
    """Translate config.json.

    Parameters
    ----------
    fields : Fields
        Its values.
    tensors : collection of str
        What the checkpoint holds.

    Returns
    -------
    DecoderConfig
        The model.
    """
    return llama.config_of(fields, windowed_layers(fields), biases=("attention",))


def write(config: DecoderConfig) -> dict[str, Any]:
    """Say a Config in config.json's words; undoes `read` where they can say it.

    Parameters
    ----------
    config : DecoderConfig
        The model.

    Returns
    -------
    dict
        Values.
    """
    return {**llama.values_of(config, "Qwen2ForCausalLM"), **windows_said(config)}


def read_3(fields: Fields, tensors: Collection[str]) -> DecoderConfig:
    """Translate config.json.

    Parameters
    ----------
    fields : Fields
        Its values.
    tensors : collection of str
        What the checkpoint holds.

    Returns
    -------
    DecoderConfig
        The model.
    """
    return llama.config_of(fields, windowed_layers(fields), biases=llama.biases_of(fields), query_key_norm="head")


def write_3(config: DecoderConfig) -> dict[str, Any]:
    """Say a Config in config.json's words; undoes `read` where they can say it.

    Parameters
    ----------
    config : DecoderConfig
        The model.

    Returns
    -------
    dict
        Values.
    """
    return {**llama.values_of(config, "Qwen3ForCausalLM"), **windows_said(config), **llama.biases_said(config)}


Qwen2 = Published("qwen2", "decoder", read, write, llama.NAMES, prefix="model.", passed_over=llama.PASSED_OVER)
Qwen3 = Published("qwen3", "decoder", read_3, write_3, {**llama.NAMES, **llama.QUERY_KEY_NORMS}, prefix="model.")
