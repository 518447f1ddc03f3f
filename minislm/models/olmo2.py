"""OLMo 2, as published: LLaMA's build with norms after each part, and of all queries and keys together.

OLMo Team (2025), arXiv 2501.00656, section 2.1.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from minislm.models import llama
from minislm.models.decoder import DecoderConfig
from minislm.models.fields import Fields
from minislm.models.published import Published

NAMES = {
    **{ours: theirs for ours, theirs in llama.NAMES.items() if ".norm_" not in ours},
    **llama.QUERY_KEY_NORMS,
    "blocks.{}.after_1.weight": "model.layers.{}.post_attention_layernorm.weight",
    "blocks.{}.after_2.weight": "model.layers.{}.post_feedforward_layernorm.weight",
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
    layers = (llama.sizes_of(fields),) * fields.blocks("num_hidden_layers")
    biases = llama.biases_of(fields)
    norm_eps = fields.positive("rms_norm_eps", 1e-5)
    return llama.config_of(fields, layers, biases=biases, norm_place="after", query_key_norm="whole", norm_eps=norm_eps)


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
    values = {**llama.values_of(config, "Olmo2ForCausalLM"), **llama.biases_said(config)}
    del values["head_dim"]
    return values


Olmo2 = Published("olmo2", "decoder", read, write, NAMES, prefix="model.")
