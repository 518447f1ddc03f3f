"""Granite 3, as published: LLaMA's build with a factor at every place where the stream is read or written.

IBM (2024), "Granite 3.0 language models"; the factors are those of maximal update parametrization (Yang et al., 2022,
arXiv 2203.03466).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from minislm.models import llama
from minislm.models.decoder import DecoderConfig
from minislm.models.fields import Fields
from minislm.models.published import Published


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
    return llama.config_of(
        fields,
        (llama.sizes_of(fields),) * fields.blocks("num_hidden_layers"),
        biases=llama.biases_of(fields),
        embedding_scale=fields.number("embedding_multiplier", 1.0),
        residual_scale=fields.number("residual_multiplier", 1.0),
        attention_scale=fields.positive("attention_multiplier", 1.0),
        logit_scale=1 / fields.positive("logits_scaling", 1.0),
    )


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
        **llama.values_of(config, "GraniteForCausalLM"),
        **llama.biases_said(config),
        "embedding_multiplier": config.embedding_scale,
        "residual_multiplier": config.residual_scale,
        "attention_multiplier": config.attention_scale,
        "logits_scaling": 1 / config.logit_scale,
    }


Granite = Published("granite", "decoder", read, write, llama.NAMES, prefix="model.")
