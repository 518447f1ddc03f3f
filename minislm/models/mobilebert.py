"""MobileBERT, as published: 24 thin blocks with bottlenecks, 25 million parameters.

References
----------
.. [1] Sun et al. (2020), "MobileBERT: a compact task-agnostic BERT for resource-limited devices", arXiv 2004.02984.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from minislm.errors import ConfigError
from minislm.models.bert import MARKS
from minislm.models.bert import NAMES as BERT_NAMES
from minislm.models.bottleneck import Bottleneck
from minislm.models.encoder import EncoderConfig
from minislm.models.fields import Fields
from minislm.models.published import Published, named
from minislm.models.published_encoder import ACTIVATIONS, read_heads, read_sentence, write_heads, write_sentence

BLOCK = {  # our Linears and Affines, and their modules
    "enter.dense": "bottleneck.input.dense",
    "enter.norm": "bottleneck.input.LayerNorm",
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.output": "attention.output.dense",
    "attention.shared.dense": "bottleneck.attention.dense",
    "attention.shared.norm": "bottleneck.attention.LayerNorm",
    "norm_1": "attention.output.LayerNorm",
    "mlps.{}.up": "ffn.{}.intermediate.dense",
    "mlps.{}.down": "ffn.{}.output.dense",
    "mlps.{}.norm": "ffn.{}.output.LayerNorm",
    "mlp.up": "intermediate.dense",
    "mlp.down": "output.dense",
    "mlp.norm": "output.LayerNorm",
    "leave": "output.bottleneck.dense",
    "norm_2": "output.bottleneck.LayerNorm",
}
NAMES = {
    **{ours: f"mobile{theirs}" if theirs.startswith("bert.") else theirs for ours, theirs in BERT_NAMES.items()
       if not ours.startswith("blocks.")},
    "trigrams.weight": "mobilebert.embeddings.embedding_transformation.weight",
    "trigrams.bias": "mobilebert.embeddings.embedding_transformation.bias",
    "heads.words.rest.weight": "cls.predictions.dense.weight",
    **{
        f"blocks.{{}}.{ours}.{kind}": f"mobilebert.encoder.layer.{{}}.{theirs}.{kind}"
        for ours, theirs in BLOCK.items()
        for kind in ("weight", "bias")
    },
}  # fmt: skip


def read(fields: Fields, tensors: Collection[str]) -> EncoderConfig:
    """Translate config.json.

    Parameters
    ----------
    fields : Fields
        Its values.
    tensors : collection of str
        What the checkpoint holds.

    Returns
    -------
    EncoderConfig
        The model, with the heads ``words``, ``next``, ``classes``, ``tags`` and ``answer`` of which there are weights.
    """
    for name in ("use_bottleneck", "key_query_shared_bottleneck", "trigram_input"):
        fields.expect(name, True)
    fields.expect("use_bottleneck_attention", False)
    fields.expect("normalization_type", "no_norm")
    d_model, context = fields.size("hidden_size"), fields.size("max_position_embeddings")
    width = fields.size("intra_bottleneck_size", 128)
    d_ff = fields.size("intermediate_size")
    sizes = fields.layer_sizes("intra_bottleneck_size", "num_attention_heads", d_ff, default=128)
    pooled = any(name.endswith("pooler.dense.weight") for name in tensors)
    heads = read_heads(fields, tensors, MARKS, pooled=pooled)
    activated = fields.flag("classifier_activation", True)
    return EncoderConfig(
        vocab_size=fields.size("vocab_size"),
        d_model=d_model,
        context=context,
        layers=(sizes,) * fields.blocks("num_hidden_layers"),
        heads=heads,
        n_types=fields.whole("type_vocab_size", 2),
        activation=fields.choice("hidden_act", ACTIVATIONS, "relu"),
        pooler=activated and (pooled or any(head.kind == "sequence" for head in heads)),
        tied=fields.flag("tie_word_embeddings", True),
        bottleneck=Bottleneck(width, fields.blocks("num_feedforward_networks", 4), fields.size("embedding_size", 128)),
        norm_eps=fields.positive("layer_norm_eps", 1e-12),
        dropout=fields.rate("hidden_dropout_prob", 0.0),
        **read_sentence(fields, d_model, context),
    )


def write(config: EncoderConfig) -> dict[str, Any]:
    """Say a Config in config.json's words; undoes `read` where they can say it.

    Parameters
    ----------
    config : EncoderConfig
        The model.

    Returns
    -------
    dict
        Values.

    Raises
    ------
    ConfigError
        Code ``config_invalid``: no MobileBERT is like this.
    """
    inner, sizes = config.bottleneck, config.layers[0]
    if inner is None or not config.n_types:
        raise ConfigError("config_invalid", "every MobileBERT has bottlenecks, and tells texts apart")
    return {
        **write_heads(config, "MobileBert"),
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context,
        "hidden_size": config.d_model,
        "embedding_size": inner.d_embedding,
        "intra_bottleneck_size": inner.width,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": sizes.n_heads,
        "num_feedforward_networks": inner.n_mlps,
        "intermediate_size": sizes.d_ff,
        "type_vocab_size": config.n_types,
        "hidden_act": named(ACTIVATIONS, config.activation),
        "classifier_activation": config.pooler or not any(head.kind == "sequence" for head in config.heads),
        "layer_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": 0.0,
        **write_sentence(config),
    }


MobileBERT = Published(
    "mobilebert",
    "encoder",
    read,
    write,
    NAMES,
    prefix="mobilebert.",
    transposed=("cls.predictions.dense.weight",),
    passed_over=(
        "position_ids",
        "cls.predictions.bias",
        "pooler.dense.weight",
        "pooler.dense.bias",
    ),  # unless activated
)
