"""Phi-1.5 and Phi-2, as published: attention and the feed-forward part side by side, biases everywhere.

Li et al. (2023), arXiv 2309.05463.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from minislm.models import llama
from minislm.models.decoder import DecoderConfig
from minislm.models.fields import Fields
from minislm.models.gpt2 import ACTIVATIONS
from minislm.models.maker import BIASED
from minislm.models.published import Published, named
from minislm.models.rotary_fields import read_rotary, write_rotary

NAMES = {
    "embedding.weight": "model.embed_tokens.weight",
    "blocks.{}.norm_1.weight": "model.layers.{}.input_layernorm.weight",
    "blocks.{}.norm_1.bias": "model.layers.{}.input_layernorm.bias",
    "blocks.{}.attention.query.weight": "model.layers.{}.self_attn.q_proj.weight",
    "blocks.{}.attention.query.bias": "model.layers.{}.self_attn.q_proj.bias",
    "blocks.{}.attention.key.weight": "model.layers.{}.self_attn.k_proj.weight",
    "blocks.{}.attention.key.bias": "model.layers.{}.self_attn.k_proj.bias",
    "blocks.{}.attention.value.weight": "model.layers.{}.self_attn.v_proj.weight",
    "blocks.{}.attention.value.bias": "model.layers.{}.self_attn.v_proj.bias",
    "blocks.{}.attention.output.weight": "model.layers.{}.self_attn.dense.weight",
    "blocks.{}.attention.output.bias": "model.layers.{}.self_attn.dense.bias",
    "blocks.{}.mlp.up.weight": "model.layers.{}.mlp.fc1.weight",
    "blocks.{}.mlp.up.bias": "model.layers.{}.mlp.fc1.bias",
    "blocks.{}.mlp.down.weight": "model.layers.{}.mlp.fc2.weight",
    "blocks.{}.mlp.down.bias": "model.layers.{}.mlp.fc2.bias",
    "final_norm.weight": "model.final_layernorm.weight",
    "final_norm.bias": "model.final_layernorm.bias",
    "head.weight": "lm_head.weight",
    "head.bias": "lm_head.bias",
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
    fields.expect("qk_layernorm", False)
    sizes = llama.sizes_of(fields)
    return DecoderConfig(
        vocab_size=fields.size("vocab_size"),
        d_model=fields.size("hidden_size"),
        context=fields.size("max_position_embeddings", 2048),
        layers=(sizes,) * fields.blocks("num_hidden_layers"),
        block="parallel",
        positions="rotary",
        rotaries=(read_rotary(fields, sizes.d_head, share=0.5),),
        norm_eps=fields.positive("layer_norm_eps", 1e-5),
        activation=fields.choice("hidden_act", ACTIVATIONS, "gelu_new"),
        biases=BIASED,
        tied=fields.flag("tie_word_embeddings", False),
        dropout=fields.rate("resid_pdrop", 0.0),
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
    sizes = config.layers[0]
    return {
        "architectures": ["PhiForCausalLM"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": sizes.d_ff,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": sizes.n_heads,
        "num_key_value_heads": sizes.n_kv_heads,
        "hidden_act": named(ACTIVATIONS, config.activation),
        "max_position_embeddings": config.context,
        "layer_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "partial_rotary_factor": 1.0,
        **(write_rotary(config.rotaries[0], sizes.d_head) if config.rotaries else {}),
    }


Phi = Published("phi", "decoder", read, write, NAMES, prefix="model.", passed_over=llama.PASSED_OVER)
