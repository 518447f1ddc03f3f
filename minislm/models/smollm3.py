"""SmolLM3, as published: LLaMA's build with blocks that do not know positions (Hugging Face, 2025)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from minislm.errors import ConfigError
from minislm.models import llama
from minislm.models.decoder import DecoderConfig
from minislm.models.fields import Fields
from minislm.models.published import Published
from minislm.models.qwen import windowed_layers, windows_said


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
    layers = windowed_layers(fields)
    every = fields.whole("no_rope_layer_interval", 4)
    rotates = fields.list("no_rope_layers", None) or [(i + 1) % every != 0 for i in range(len(layers))]
    if len(rotates) != len(layers):
        raise ConfigError(
            "config_invalid", f"{fields.origin}: no_rope_layers must have one entry for each of {len(layers)} blocks"
        )
    layers = tuple(replace(sizes, rotary=0 if turns else None) for sizes, turns in zip(layers, rotates, strict=True))
    tied = fields.flag("tie_word_embeddings", True)
    return llama.config_of(fields, layers, biases=llama.biases_of(fields), tied=tied)


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
    return {
        **llama.values_of(config, "SmolLM3ForCausalLM"),
        **windows_said(config),
        **llama.biases_said(config),
        "no_rope_layers": [int(sizes.rotary is not None) for sizes in config.layers],
    }


SmolLM3 = Published("smollm3", "decoder", read, write, llama.NAMES, prefix="model.")
