"""GPT-Neo, as published: every other block sees a window only, and scores are not scaled.

Black, Gao, Wang, Leahy, Biderman (2021), "GPT-Neo: large scale autoregressive language modeling with Mesh-Tensorflow".
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from minislm.errors import ConfigError
from minislm.models.decoder import DecoderConfig
from minislm.models.fields import Fields
from minislm.models.gpt2 import ACTIVATIONS
from minislm.models.published import Published, named

NAMES = {
    "embedding.weight": "transformer.wte.weight",
    "positions.weight": "transformer.wpe.weight",
    "blocks.{}.norm_1.weight": "transformer.h.{}.ln_1.weight",
    "blocks.{}.norm_1.bias": "transformer.h.{}.ln_1.bias",
    "blocks.{}.attention.query.weight": "transformer.h.{}.attn.attention.q_proj.weight",
    "blocks.{}.attention.key.weight": "transformer.h.{}.attn.attention.k_proj.weight",
    "blocks.{}.attention.value.weight": "transformer.h.{}.attn.attention.v_proj.weight",
    "blocks.{}.attention.output.weight": "transformer.h.{}.attn.attention.out_proj.weight",
    "blocks.{}.attention.output.bias": "transformer.h.{}.attn.attention.out_proj.bias",
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
KINDS = ("global", "local")


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
    d_model = fields.size("hidden_size")
    sizes = fields.layer_sizes("hidden_size", "num_heads", fields.size("intermediate_size", None))
    window = fields.size("window_size", 256)
    layers = tuple(replace(sizes, window=window if kind == "local" else None) for kind in _kinds(fields))
    return DecoderConfig(
        vocab_size=fields.size("vocab_size"),
        d_model=d_model,
        context=fields.size("max_position_embeddings", 2048),
        layers=layers,
        norm_eps=fields.positive("layer_norm_epsilon", 1e-5),
        activation=fields.choice("activation_function", ACTIVATIONS, "gelu_new"),
        biases=("output", "mlp", "norm"),
        tied=fields.flag("tie_word_embeddings", True),
        attention_scale=1.0,
        dropout=fields.rate("resid_dropout", 0.0),
    )


def _kinds(fields: Fields) -> list[str]:
    """Read whether each block sees everything or a window: ``[[["global", "local"], 6]]`` is twelve blocks."""
    n_layers = fields.blocks("num_layers")
    try:
        kinds = [kind for pattern, times in fields.list("attention_types") for kind in pattern * times]
    except (TypeError, ValueError):
        kinds = []
    if len(kinds) != n_layers or set(kinds) - set(KINDS):
        raise ConfigError(
            "config_invalid", f"{fields.origin}: attention_types must name one of {KINDS} for each of {n_layers} blocks"
        )
    return kinds


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
    kinds = [KINDS[layer.window is not None] for layer in config.layers]
    return {
        "architectures": ["GPTNeoForCausalLM"],
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context,
        "hidden_size": config.d_model,
        "num_layers": config.n_layers,
        "num_heads": sizes.n_heads,
        "intermediate_size": sizes.d_ff,
        "attention_types": [[kinds, 1]],
        "attention_layers": kinds,
        "window_size": next((layer.window for layer in config.layers if layer.window), 256),
        "activation_function": named(ACTIVATIONS, config.activation),
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "resid_dropout": config.dropout,
        "embed_dropout": config.dropout,
        "attention_dropout": 0.0,
    }


GPTNeo = Published(
    "gpt_neo",
    "decoder",
    read,
    write,
    NAMES,
    prefix="transformer.",
    passed_over=(".attention.bias", ".attention.masked_bias"),
)
