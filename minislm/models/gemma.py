"""Gemma 2 and the text models of Gemma 3, as published.

Norms on both sides whose gains count from one, scaled embeddings, blocks with a window between those without; Gemma 2
caps scores and logits softly (arXiv 2408.00118, section 2), Gemma 3 normalizes queries and keys instead and turns the
windowed ones by another base (arXiv 2503.19786, section 2).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from minislm.config import LayerSizes
from minislm.errors import ConfigError
from minislm.layers.rotary import Rotary
from minislm.models import llama
from minislm.models.decoder import DecoderConfig
from minislm.models.fields import Fields
from minislm.models.published import Published, named
from minislm.models.rotary_fields import read_rotary, write_rotary

NAMES = {
    **{ours: theirs for ours, theirs in llama.NAMES.items() if ".norm_2" not in ours},
    "blocks.{}.after_1.weight": "model.layers.{}.post_attention_layernorm.weight",
    "blocks.{}.norm_2.weight": "model.layers.{}.pre_feedforward_layernorm.weight",
    "blocks.{}.after_2.weight": "model.layers.{}.post_feedforward_layernorm.weight",
}
GLOBAL, LOCAL = 0, 1  # Gemma 3's kinds of rotary positions


def _config(fields: Fields, layers: tuple[LayerSizes, ...], **choices: Any) -> DecoderConfig:
    """Read what both generations say."""
    d_head = layers[0].d_head
    activation = fields.choice("hidden_activation", llama.ACTIVATIONS, "gelu_pytorch_tanh")
    return llama.config_of(
        fields,
        layers,
        activation=activation,
        biases=llama.biases_of(fields),
        tied=fields.flag("tie_word_embeddings", True),
        norm_place="around",
        norm_offset=1.0,
        embedding_scale=math.sqrt(fields.size("hidden_size")),
        attention_scale=fields.positive("query_pre_attn_scalar", d_head) ** -0.5,
        attention_cap=fields.positive("attn_logit_softcapping", None),
        logit_cap=fields.positive("final_logit_softcapping", None),
        **choices,
    )


def _values(config: DecoderConfig, architecture: str) -> dict[str, Any]:
    """Say what both generations say."""
    values = llama.values_of(config, architecture)
    if config.attention_scale is None:
        raise ConfigError("config_invalid", "Gemma says the scale of its scores")
    return {
        **values,
        **llama.biases_said(config),
        "hidden_activation": named(llama.ACTIVATIONS, config.activation),
        "query_pre_attn_scalar": round(config.attention_scale**-2),
        "attn_logit_softcapping": config.attention_cap,
        "final_logit_softcapping": config.logit_cap,
        "sliding_window": next((sizes.window for sizes in config.layers if sizes.window), None),
        "layer_types": [llama.LAYER_KINDS[sizes.window is not None] for sizes in config.layers],
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
    sizes, window = llama.sizes_of(fields), fields.size("sliding_window", 4096)
    kinds = llama.layer_kinds(fields, lambda i: llama.LAYER_KINDS[i % 2 == 0])
    return _config(fields, tuple(replace(sizes, window=window if kind == llama.WINDOWED else None) for kind in kinds))


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
    return _values(config, "Gemma2ForCausalLM")


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
    sizes, window = llama.sizes_of(fields), fields.size("sliding_window", 4096)
    every = fields.whole("sliding_window_pattern", 6)
    kinds = llama.layer_kinds(fields, lambda i: llama.LAYER_KINDS[(i + 1) % every != 0])
    local = replace(sizes, window=window, rotary=LOCAL)
    turns = {
        "full_attention": read_rotary(fields, sizes.d_head, base=1e6, kind="full_attention"),
        llama.WINDOWED: Rotary(fields.positive("rope_local_base_freq", 10000.0), sizes.d_head),
    }
    if "rope_parameters" in fields:
        turns[llama.WINDOWED] = read_rotary(fields, sizes.d_head, kind=llama.WINDOWED)
    return _config(
        fields,
        tuple(local if kind == llama.WINDOWED else sizes for kind in kinds),
        query_key_norm="head",
        rotaries=tuple(turns.values()),
    )


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
    values = _values(config, "Gemma3ForCausalLM")
    if len(config.rotaries) != 2:
        raise ConfigError("config_invalid", "Gemma 3 has two kinds of rotary positions")
    whole = write_rotary(config.rotaries[GLOBAL], config.layers[0].d_head)
    return {**values, **whole, "rope_local_base_freq": config.rotaries[LOCAL].base}


Gemma2 = Published("gemma2", "decoder", read, write, NAMES, prefix="model.")
Gemma3 = Published("gemma3_text", "decoder", read_3, write_3, {**NAMES, **llama.QUERY_KEY_NORMS}, prefix="model.")
