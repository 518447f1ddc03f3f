"""Marian, as published: the translators of OPUS-MT (Junczys-Dowmunt et al., 2018, arXiv 1804.00344)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from minislm.config import LayerSizes
from minislm.models.fields import Fields
from minislm.models.published import Published, named
from minislm.models.transformer import MOST_POSITIONS, TransformerConfig

ACTIVATIONS = {"swish": "silu", "silu": "silu", "relu": "relu", "gelu": "gelu", "gelu_new": "gelu_tanh"}
ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
ENCODER = {
    **{f"attention.{ours}": f"self_attn.{theirs}" for ours, theirs in ATTENTION.items()},
    "norm_1": "self_attn_layer_norm",
    "mlp.up": "fc1",
    "mlp.down": "fc2",
    "norm_2": "final_layer_norm",
}
DECODER = {
    **{f"attention.{ours}": f"self_attn.{theirs}" for ours, theirs in ATTENTION.items()},
    "norm_1": "self_attn_layer_norm",
    **{f"cross_attention.{ours}": f"encoder_attn.{theirs}" for ours, theirs in ATTENTION.items()},
    "norm_2": "encoder_attn_layer_norm",
    "mlp.up": "fc1",
    "mlp.down": "fc2",
    "norm_3": "final_layer_norm",
}
NAMES = {
    "embedding.weight": "model.shared.weight",
    **{
        f"{side}.blocks.{{}}.{ours}.{kind}": f"model.{side}.layers.{{}}.{theirs}.{kind}"
        for side, parts in (("encoder", ENCODER), ("decoder", DECODER))
        for ours, theirs in parts.items()
        for kind in ("weight", "bias")
    },
    "head.weight": "lm_head.weight",
    "logit_bias": "final_logits_bias",
}
APART = {
    "source_embedding.weight": "model.encoder.embed_tokens.weight",
    "embedding.weight": "model.decoder.embed_tokens.weight",
}


def read(fields: Fields, tensors: Collection[str]) -> TransformerConfig:
    """Translate config.json.

    Parameters
    ----------
    fields : Fields
        Its values.
    tensors : collection of str
        What the checkpoint holds.

    Returns
    -------
    TransformerConfig
        The model.
    """
    for name in ("normalize_before", "normalize_embedding", "add_final_layer_norm", "add_bias_logits"):
        fields.expect(name, False)
    fields.expect("static_position_embeddings", True)
    vocab_size = fields.size("vocab_size")
    shared = fields.flag("share_encoder_decoder_embeddings", True)
    return TransformerConfig(
        vocab_size=vocab_size if shared else fields.size("decoder_vocab_size", vocab_size),
        source_vocab_size=None if shared else vocab_size,
        d_model=fields.size("d_model"),
        context=fields.size("max_position_embeddings", 1024, most=MOST_POSITIONS),
        layers=_layers(fields, "decoder"),
        encoder_layers=_layers(fields, "encoder"),
        positions="halves",
        activation=fields.choice("activation_function", ACTIVATIONS, "gelu"),
        biases=("attention", "output", "mlp", "norm", *(("head",) if "final_logits_bias" in tensors else ())),
        tied=fields.flag("tie_word_embeddings", True),
        embedding_scale=None if fields.flag("scale_embedding", False) else 1.0,
        dropout=fields.rate("dropout", 0.1),
    )


def write(config: TransformerConfig) -> dict[str, Any]:
    """Say a Config in config.json's words; undoes `read` where they can say it.

    Parameters
    ----------
    config : TransformerConfig
        The model.

    Returns
    -------
    dict
        Values.
    """
    shared = config.source_vocab_size is None
    values = {
        "architectures": ["MarianMTModel"],
        "is_encoder_decoder": True,
        "vocab_size": config.source.vocab_size,
        "decoder_vocab_size": config.vocab_size,
        "share_encoder_decoder_embeddings": shared,
        "d_model": config.d_model,
        "max_position_embeddings": config.context,
        "activation_function": named(ACTIVATIONS, config.activation),
        "tie_word_embeddings": config.tied,
        "scale_embedding": config.embedding_scale is None,
        "dropout": config.dropout,
        "attention_dropout": 0.0,
    }
    for side, layers in (("encoder", config.encoder_layers), ("decoder", config.layers)):
        values[f"{side}_layers"] = len(layers)
        values[f"{side}_attention_heads"] = layers[0].n_heads
        values[f"{side}_ffn_dim"] = layers[0].d_ff
    return values


def _layers(fields: Fields, side: str) -> tuple[LayerSizes, ...]:
    """Read the blocks of one side."""
    sizes = fields.layer_sizes("d_model", f"{side}_attention_heads", fields.size(f"{side}_ffn_dim"))
    return (sizes,) * fields.blocks(f"{side}_layers")


MARIAN = Published(
    "marian",
    "transformer",
    read,
    write,
    NAMES,
    variants=(APART,),
    passed_over=("embed_positions.weight",),
    one_row=("final_logits_bias",),
)
