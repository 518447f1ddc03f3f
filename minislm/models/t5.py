"""T5, as published, and its successors T5 1.1 and Flan-T5 (Raffel et al., 2020, arXiv 1910.10683)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from minislm.config import MOST_HEAD, LayerSizes
from minislm.models.fields import Fields
from minislm.models.published import Published, named
from minislm.models.transformer import MOST_POSITIONS, TransformerConfig

# Kind and activation of the feed-forward part; what is called "gated-gelu" was always the approximation by tanh.
FEED_FORWARD = {
    "relu": ("plain", "relu"),
    "gelu": ("plain", "gelu"),
    "gelu_new": ("plain", "gelu_tanh"),
    "gated-gelu": ("gated", "gelu_tanh"),
    "gated-gelu_new": ("gated", "gelu_tanh"),
    "gated-silu": ("gated", "silu"),
}


def _attention_names(side: str, ours: str, layer: int, theirs: str) -> dict[str, str]:
    """Name the projections of an attention."""
    letters = {"query": "q", "key": "k", "value": "v", "output": "o"}
    return {
        f"{side}.blocks.{{}}.{ours}.{name}.weight": f"{side}.block.{{}}.layer.{layer}.{theirs}.{letter}.weight"
        for name, letter in letters.items()
    }


def _mlp_names(side: str, layer: int, parts: Mapping[str, str]) -> dict[str, str]:
    """Name the matrices of a feed-forward part."""
    return {
        f"{side}.blocks.{{}}.mlp.{ours}.weight": f"{side}.block.{{}}.layer.{layer}.DenseReluDense.{theirs}.weight"
        for ours, theirs in parts.items()
    }


def _norm_names(side: str, n_parts: int) -> dict[str, str]:
    """Name the norms of a block, each before one of its parts."""
    return {
        f"{side}.blocks.{{}}.norm_{i + 1}.weight": f"{side}.block.{{}}.layer.{i}.layer_norm.weight"
        for i in range(n_parts)
    }


PLAIN, GATED = {"up": "wi", "down": "wo"}, {"gate": "wi_0", "up": "wi_1"}
BIAS = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
NAMES = {
    "embedding.weight": "shared.weight",
    "encoder.bias.weight": f"encoder.{BIAS}",
    **_norm_names("encoder", 2),
    **_attention_names("encoder", "attention", 0, "SelfAttention"),
    **_mlp_names("encoder", 1, PLAIN),
    "encoder.norm.weight": "encoder.final_layer_norm.weight",
    "decoder.bias.weight": f"decoder.{BIAS}",
    **_norm_names("decoder", 3),
    **_attention_names("decoder", "attention", 0, "SelfAttention"),
    **_attention_names("decoder", "cross_attention", 1, "EncDecAttention"),
    **_mlp_names("decoder", 2, PLAIN),
    "decoder.norm.weight": "decoder.final_layer_norm.weight",
    "head.weight": "lm_head.weight",
}


def read(fields: Fields, tensors: Collection[str]) -> TransformerConfig:
    """Translate config.json.

    Parameters
    ----------
    fields : Fields
        Its values.
    tensors : collection of str
        What the checkpoint holds. Files before T5 1.1 tie the head, and scale what it reads.

    Returns
    -------
    TransformerConfig
        The model.
    """
    mlp, activation = fields.choice("feed_forward_proj", FEED_FORWARD, "relu")
    d_model, n_heads, n_layers = fields.size("d_model"), fields.size("num_heads"), fields.blocks("num_layers")
    sizes = LayerSizes(n_heads, n_heads, fields.size("d_kv", most=MOST_HEAD), fields.size("d_ff"))
    one_table = fields.flag("tie_word_embeddings", True)
    return TransformerConfig(
        vocab_size=fields.size("vocab_size"),
        d_model=d_model,
        context=fields.size("n_positions", 512, most=MOST_POSITIONS),
        layers=(sizes,) * fields.blocks("num_decoder_layers", n_layers),
        encoder_layers=(sizes,) * n_layers,
        positions="relative",
        n_buckets=fields.size("relative_attention_num_buckets", 32),
        max_distance=fields.size("relative_attention_max_distance", 128),
        norm="rms",
        norm_place="before",
        norm_eps=fields.positive("layer_norm_epsilon", 1e-6),
        mlp=mlp,
        activation=activation,
        biases=(),
        tied=one_table or "lm_head.weight" not in tensors,
        attention_scale=1.0,
        embedding_scale=1.0,
        logit_scale=d_model**-0.5 if fields.flag("scale_decoder_outputs", one_table) else 1.0,
        dropout=fields.rate("dropout_rate", 0.1),
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
    sizes = config.layers[0]
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "is_encoder_decoder": True,
        "vocab_size": config.vocab_size,
        "n_positions": config.context,
        "d_model": config.d_model,
        "num_layers": len(config.encoder_layers),
        "num_decoder_layers": config.n_layers,
        "num_heads": sizes.n_heads,
        "d_kv": sizes.d_head,
        "d_ff": sizes.d_ff,
        "feed_forward_proj": named(FEED_FORWARD, (config.mlp, config.activation)),
        "relative_attention_num_buckets": config.n_buckets,
        "relative_attention_max_distance": config.max_distance,
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "scale_decoder_outputs": config.logit_scale != 1,
        "dropout_rate": config.dropout,
    }


T5 = Published(
    "t5",
    "transformer",
    read,
    write,
    NAMES,
    variants=({**_mlp_names("encoder", 1, GATED), **_mlp_names("decoder", 2, GATED)},),
    passed_over=("EncDecAttention.relative_attention_bias.weight",),
)
