"""Phi-3 and Phi-4-mini, as published: LLaMA's build in fused matrices, LongRoPE's two tables, part of a head rotated.

Abdin et al. (2024), arXiv 2404.14219; Abouelenin et al. (2025), arXiv 2503.01743.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from minislm.layers.rotary import LongRope
from minislm.models import llama
from minislm.models.decoder import DecoderConfig
from minislm.models.fields import Fields
from minislm.models.published import Published

NAMES = {
    "embedding.weight": "model.embed_tokens.weight",
    "blocks.{}.norm_1.weight": "model.layers.{}.input_layernorm.weight",
    "blocks.{}.attention.query.weight": "model.layers.{}.self_attn.qkv_proj.weight",
    "blocks.{}.attention.key.weight": "model.layers.{}.self_attn.qkv_proj.weight",
    "blocks.{}.attention.value.weight": "model.layers.{}.self_attn.qkv_proj.weight",
    "blocks.{}.attention.output.weight": "model.layers.{}.self_attn.o_proj.weight",
    "blocks.{}.norm_2.weight": "model.layers.{}.post_attention_layernorm.weight",
    "blocks.{}.mlp.gate.weight": "model.layers.{}.mlp.gate_up_proj.weight",
    "blocks.{}.mlp.up.weight": "model.layers.{}.mlp.gate_up_proj.weight",
    "blocks.{}.mlp.down.weight": "model.layers.{}.mlp.down_proj.weight",
    "final_norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
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
    sizes = replace(llama.sizes_of(fields), window=fields.size("sliding_window", None))
    return llama.config_of(fields, (sizes,) * fields.blocks("num_hidden_layers"))


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
    values = {**llama.values_of(config, "Phi3ForCausalLM"), "sliding_window": config.layers[0].window}
    scaling = config.rotaries[0].scaling
    if isinstance(scaling, LongRope):
        values["original_max_position_embeddings"] = scaling.original_context
    return values


Phi3 = Published("phi3", "decoder", read, write, NAMES, prefix="model.", passed_over=llama.PASSED_OVER)
