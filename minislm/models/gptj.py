"""GPT-J, as published: attention and the feed-forward part side by side, neighbouring entries of a head rotated.

Wang, Komatsuzaki (2021), "GPT-J-6B".
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from minislm.layers.rotary import Rotary
from minislm.models.decoder import DecoderConfig
from minislm.models.fields import Fields
from minislm.models.gpt2 import ACTIVATIONS
from minislm.models.published import Published, named

NAMES = {
    "embedding.weight": "transformer.wte.weight",
    "blocks.{}.norm_1.weight": "transformer.h.{}.ln_1.weight",
    "blocks.{}.norm_1.bias": "transformer.h.{}.ln_1.bias",
    "blocks.{}.attention.query.weight": "transformer.h.{}.attn.q_proj.weight",
    "blocks.{}.attention.key.weight": "transformer.h.{}.attn.k_proj.weight",
    "blocks.{}.attention.value.weight": "transformer.h.{}.attn.v_proj.weight",
    "blocks.{}.attention.output.weight": "transformer.h.{}.attn.out_proj.weight",
    "blocks.{}.mlp.up.weight": "transformer.h.{}.mlp.fc_in.weight",
    "blocks.{}.mlp.up.bias": "transformer.h.{}.mlp.fc_in.bias",
    "blocks.{}.mlp.down.weight": "transformer.h.{}.mlp.fc_out.weight",
    "blocks.{}.mlp.down.bias": "transformer.h.{}.mlp.fc_out.bias",
    "final_norm.weight": "transformer.ln_f.weight",
    "final_norm.bias": "transformer.ln_f.bias",
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
    d_model = fields.size("n_embd")
    sizes = fields.layer_sizes("n_embd", "n_head", fields.size("n_inner", None))
    width = fields.whole("rotary_dim", 64)
    return DecoderConfig(
        vocab_size=fields.size("vocab_size"),
        d_model=d_model,
        context=fields.size("n_positions", 2048),
        layers=(sizes,) * fields.blocks("n_layer"),
        block="parallel",
        positions="rotary",
        rotaries=(Rotary(10000.0, width, interleaved=True),),
        norm_eps=fields.positive("layer_norm_epsilon", 1e-5),
        activation=fields.choice("activation_function", ACTIVATIONS, "gelu_new"),
        biases=("mlp", "norm", "head"),
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
        "architectures": ["GPTJForCausalLM"],
        "vocab_size": config.vocab_size,
        "n_positions": config.context,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": sizes.n_heads,
        "n_inner": sizes.d_ff,
        "rotary_dim": config.rotaries[0].width,
        "activation_function": named(ACTIVATIONS, config.activation),
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": 0.0,
    }


GPTJ = Published(
    "gptj", "decoder", read, write, NAMES, prefix="transformer.", passed_over=(".attn.bias", ".attn.masked_bias")
)
