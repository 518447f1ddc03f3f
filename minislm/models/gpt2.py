"""GPT-2, as published: 124 million to 1.5 thousand million parameters (Radford et al., 2019)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from minislm.models.decoder import DecoderConfig
from minislm.models.fields import Fields
from minislm.models.published import Published, named

ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "relu": "relu"}

NAMES = {
    "embedding.weight": "transformer.wte.weight",
    "positions.weight": "transformer.wpe.weight",
    "blocks.{}.norm_1.weight": "transformer.h.{}.ln_1.weight",
    "blocks.{}.norm_1.bias": "transformer.h.{}.ln_1.bias",
    "blocks.{}.attention.query.weight": "transformer.h.{}.attn.c_attn.weight",
    "blocks.{}.attention.key.weight": "transformer.h.{}.attn.c_attn.weight",
    "blocks.{}.attention.value.weight": "transformer.h.{}.attn.c_attn.weight",
    "blocks.{}.attention.query.bias": "transformer.h.{}.attn.c_attn.bias",
    "blocks.{}.attention.key.bias": "transformer.h.{}.attn.c_attn.bias",
    "blocks.{}.attention.value.bias": "transformer.h.{}.attn.c_attn.bias",
    "blocks.{}.attention.output.weight": "transformer.h.{}.attn.c_proj.weight",
    "blocks.{}.attention.output.bias": "transformer.h.{}.attn.c_proj.bias",
    "blocks.{}.norm_2.weight": "transformer.h.{}.ln_2.weight",
    "blocks.{}.norm_2.bias": "transformer.h.{}.ln_2.bias",
    "blocks.{}.mlp.up.weight": "transformer.h.{}.mlp.c_fc.weight",
    "blocks.{}.mlp.up.bias": "transformer.h.{}.mlp.c_fc.bias",
    "blocks.{}.mlp.down.weight": "transformer.h.{}.mlp.c_proj.weight",
    "blocks.{}.mlp.down.bias": "transformer.h.{}.mlp.c_proj.bias",
    "final_norm.weight": "transformer.ln_f.weight",
    "final_norm.bias": "transformer.ln_f.bias",
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
    fields.expect("scale_attn_weights", True)
    fields.expect("scale_attn_by_inverse_layer_idx", False)
    fields.expect("add_cross_attention", False)
    d_model = fields.size("n_embd")
    sizes = fields.layer_sizes("n_embd", "n_head", fields.size("n_inner", None))
    return DecoderConfig(
        vocab_size=fields.size("vocab_size"),
        d_model=d_model,
        context=fields.size("n_positions"),
        layers=(sizes,) * fields.blocks("n_layer"),
        activation=fields.choice("activation_function", ACTIVATIONS, "gelu_new"),
        norm_eps=fields.positive("layer_norm_epsilon", 1e-5),
        biases=("attention", "output", "mlp", "norm"),
        tied=fields.flag("tie_word_embeddings", True),
        dropout=fields.rate("resid_pdrop", 0.1),
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
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": config.vocab_size,
        "n_positions": config.context,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": sizes.n_heads,
        "n_inner": sizes.d_ff,
        "activation_function": named(ACTIVATIONS, config.activation),
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": 0.0,
    }


GPT2 = Published(
    "gpt2",
    "decoder",
    read,
    write,
    NAMES,
    prefix="transformer.",
    transposed=("c_attn.weight", "c_proj.weight", "c_fc.weight"),
    passed_over=(".attn.bias", ".attn.masked_bias"),
)
