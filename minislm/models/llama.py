"""LLaMA, as published, and the checkpoints of the same build: LLaMA 2 and 3, Orca 2, TinyLlama, SmolLM2, Mistral.

RMS norms, rotary positions, a gated feed-forward part, grouped key and value heads, no biases (Touvron et al., 2023,
arXiv 2302.13971 and 2307.09288). Files of later models begin with what stands here and add what is particular.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from minislm.config import MOST_HEAD, LayerSizes
from minislm.errors import ConfigError, listed
from minislm.models.decoder import DecoderConfig
from minislm.models.fields import Fields
from minislm.models.published import Published, named
from minislm.models.rotary_fields import first_context, longest_context, read_rotary, write_rotary

ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}
WINDOWED = "sliding_attention"
LAYER_KINDS = ("full_attention", WINDOWED)
PASSED_OVER = ("rotary_emb.inv_freq",)

NAMES = {
    "embedding.weight": "model.embed_tokens.weight",
    "blocks.{}.norm_1.weight": "model.layers.{}.input_layernorm.weight",
    "blocks.{}.attention.query.weight": "model.layers.{}.self_attn.q_proj.weight",
    "blocks.{}.attention.query.bias": "model.layers.{}.self_attn.q_proj.bias",
    "blocks.{}.attention.key.weight": "model.layers.{}.self_attn.k_proj.weight",
    "blocks.{}.attention.key.bias": "model.layers.{}.self_attn.k_proj.bias",
    "blocks.{}.attention.value.weight": "model.layers.{}.self_attn.v_proj.weight",
    "blocks.{}.attention.value.bias": "model.layers.{}.self_attn.v_proj.bias",
    "blocks.{}.attention.output.weight": "model.layers.{}.self_attn.o_proj.weight",
    "blocks.{}.attention.output.bias": "model.layers.{}.self_attn.o_proj.bias",
    "blocks.{}.norm_2.weight": "model.layers.{}.post_attention_layernorm.weight",
    "blocks.{}.mlp.gate.weight": "model.layers.{}.mlp.gate_proj.weight",
    "blocks.{}.mlp.gate.bias": "model.layers.{}.mlp.gate_proj.bias",
    "blocks.{}.mlp.up.weight": "model.layers.{}.mlp.up_proj.weight",
    "blocks.{}.mlp.up.bias": "model.layers.{}.mlp.up_proj.bias",
    "blocks.{}.mlp.down.weight": "model.layers.{}.mlp.down_proj.weight",
    "blocks.{}.mlp.down.bias": "model.layers.{}.mlp.down_proj.bias",
    "final_norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
QUERY_KEY_NORMS = {
    "blocks.{}.attention.query_norm.weight": "model.layers.{}.self_attn.q_norm.weight",
    "blocks.{}.attention.key_norm.weight": "model.layers.{}.self_attn.k_norm.weight",
}


def sizes_of(fields: Fields) -> LayerSizes:
    """Read the sizes that all blocks have.

    Parameters
    ----------
    fields : Fields
        Of config.json.

    Returns
    -------
    LayerSizes
        The sizes.

    Raises
    ------
    ConfigError
        Code ``config_invalid``: heads that do not share the width, or those of keys and values, out evenly.
    """
    d_ff = fields.size("intermediate_size")
    if "head_dim" in fields:
        n_heads, d_head = fields.size("num_attention_heads"), fields.size("head_dim", most=MOST_HEAD)
    else:
        shared = fields.layer_sizes("hidden_size", "num_attention_heads", d_ff)
        n_heads, d_head = shared.n_heads, shared.d_head
    n_kv_heads = fields.size("num_key_value_heads", n_heads)
    fields.check_multiple("num_attention_heads", "num_key_value_heads", n_heads, n_kv_heads)
    return LayerSizes(n_heads, n_kv_heads, d_head, d_ff)


def layer_kinds(fields: Fields, default: Callable[[int], str] = lambda i: LAYER_KINDS[0]) -> list[str]:
    """Read which blocks see all positions and which a window.

    Parameters
    ----------
    fields : Fields
        Of config.json.
    default : callable
        What block i is where `layer_types` is missing.

    Returns
    -------
    list of str
        Of `LAYER_KINDS`, one for each block.

    Raises
    ------
    ConfigError
        Code ``config_invalid``: another kind, or not one for each block.
    """
    n_layers = fields.blocks("num_hidden_layers")
    kinds: list[str] = fields.list("layer_types", None) or [default(i) for i in range(n_layers)]
    if len(kinds) != n_layers or not set(map(str, kinds)) <= set(LAYER_KINDS):
        raise ConfigError(
            "config_invalid",
            f"{fields.origin}: layer_types must name {listed(LAYER_KINDS)} for each of {n_layers} blocks",
        )
    return kinds


def config_of(fields: Fields, layers: tuple[LayerSizes, ...], **choices: Any) -> DecoderConfig:
    """Read what all checkpoints of this build say.

    Parameters
    ----------
    fields : Fields
        Of config.json.
    layers : tuple of LayerSizes
        Of each block.
    **choices
        Fields of the Config that differ from LLaMA's.

    Returns
    -------
    DecoderConfig
        The model.
    """
    usual = {
        "rotaries": (read_rotary(fields, layers[0].d_head),) if layers else (),
        "activation": "silu" if "hidden_act" not in fields else fields.choice("hidden_act", ACTIVATIONS),
        "norm_eps": fields.positive("rms_norm_eps", 1e-6),
        "biases": (),
        "tied": fields.flag("tie_word_embeddings", False),
    }
    found = {**usual, **choices}
    return DecoderConfig(
        vocab_size=fields.size("vocab_size"),
        d_model=fields.size("hidden_size"),
        context=first_context(found["rotaries"], fields.size("max_position_embeddings", 2048)),
        layers=layers,
        positions="rotary",
        norm="rms",
        mlp="gated",
        **found,
    )


def values_of(config: DecoderConfig, architecture: str) -> dict[str, Any]:
    """Say what all checkpoints of this build say.

    Parameters
    ----------
    config : DecoderConfig
        The model.
    architecture : str
        Its class in transformers.

    Returns
    -------
    dict
        Values of config.json.
    """
    sizes = config.layers[0]
    return {
        "architectures": [architecture],
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": sizes.d_ff,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": sizes.n_heads,
        "num_key_value_heads": sizes.n_kv_heads,
        "head_dim": sizes.d_head,
        "hidden_act": named(ACTIVATIONS, config.activation),
        "max_position_embeddings": longest_context(config.rotaries, config.context),
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied,
        **(write_rotary(config.rotaries[0], sizes.d_head) if config.rotaries else {}),
    }


def biases_of(fields: Fields) -> tuple[str, ...]:
    """Read which parts have biases.

    Parameters
    ----------
    fields : Fields
        Of config.json.

    Returns
    -------
    tuple of str
        As of `DecoderConfig`.
    """
    attention = ("attention", "output") if fields.flag("attention_bias", False) else ()
    return attention + (("mlp",) if fields.flag("mlp_bias", False) else ())


def biases_said(config: DecoderConfig) -> Mapping[str, bool]:
    """Say which parts have biases; undoes `biases_of`.

    Parameters
    ----------
    config : DecoderConfig
        The model.

    Returns
    -------
    mapping of str to bool
        Values of config.json.
    """
    return {"attention_bias": "attention" in config.biases, "mlp_bias": "mlp" in config.biases}


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
    fields.expect("pretraining_tp", 1, *range(2, 65))  # how training was spread; the products are the same
    layers = (sizes_of(fields),) * fields.blocks("num_hidden_layers")
    return config_of(fields, layers, biases=biases_of(fields))


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
    return {**values_of(config, "LlamaForCausalLM"), **biases_said(config)}


def read_mistral(fields: Fields, tensors: Collection[str]) -> DecoderConfig:
    """Translate Mistral's config.json: LLaMA's with a window in every block (Jiang et al., 2023, arXiv 2310.06825).

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
    sizes = sizes_of(fields)
    window = fields.size("sliding_window", None) if "sliding_window" in fields.values else 4096
    layers = (LayerSizes(sizes.n_heads, sizes.n_kv_heads, sizes.d_head, sizes.d_ff, window),)
    return config_of(fields, layers * fields.blocks("num_hidden_layers"))


def write_mistral(config: DecoderConfig) -> dict[str, Any]:
    """Say a Config in the words of Mistral's config.json.

    Parameters
    ----------
    config : DecoderConfig
        The model.

    Returns
    -------
    dict
        Values.
    """
    return {**values_of(config, "MistralForCausalLM"), "sliding_window": config.layers[0].window}


Llama = Published("llama", "decoder", read, write, NAMES, prefix="model.", passed_over=PASSED_OVER)
Mistral = Published("mistral", "decoder", read_mistral, write_mistral, NAMES, prefix="model.", passed_over=PASSED_OVER)
