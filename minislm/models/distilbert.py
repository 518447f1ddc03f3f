"""DistilBERT, as published: six of BERT's blocks without token types, and heads of its own shape.

References
----------
.. [1] Sanh, Debut, Chaumond, Wolf (2019), "DistilBERT", arXiv 1910.01108.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from minislm.errors import ConfigError
from minislm.models.encoder import EncoderConfig
from minislm.models.fields import Fields
from minislm.models.published import Published, named
from minislm.models.published_encoder import ACTIVATIONS, read_heads, read_sentence, write_heads, write_sentence

NORM_EPS = 1e-12  # config.json has no field for it

NAMES = {
    "embedding.weight": "distilbert.embeddings.word_embeddings.weight",
    "positions.weight": "distilbert.embeddings.position_embeddings.weight",
    "embedding_norm.weight": "distilbert.embeddings.LayerNorm.weight",
    "embedding_norm.bias": "distilbert.embeddings.LayerNorm.bias",
    "blocks.{}.attention.query.weight": "distilbert.transformer.layer.{}.attention.q_lin.weight",
    "blocks.{}.attention.query.bias": "distilbert.transformer.layer.{}.attention.q_lin.bias",
    "blocks.{}.attention.key.weight": "distilbert.transformer.layer.{}.attention.k_lin.weight",
    "blocks.{}.attention.key.bias": "distilbert.transformer.layer.{}.attention.k_lin.bias",
    "blocks.{}.attention.value.weight": "distilbert.transformer.layer.{}.attention.v_lin.weight",
    "blocks.{}.attention.value.bias": "distilbert.transformer.layer.{}.attention.v_lin.bias",
    "blocks.{}.attention.output.weight": "distilbert.transformer.layer.{}.attention.out_lin.weight",
    "blocks.{}.attention.output.bias": "distilbert.transformer.layer.{}.attention.out_lin.bias",
    "blocks.{}.norm_1.weight": "distilbert.transformer.layer.{}.sa_layer_norm.weight",
    "blocks.{}.norm_1.bias": "distilbert.transformer.layer.{}.sa_layer_norm.bias",
    "blocks.{}.mlp.up.weight": "distilbert.transformer.layer.{}.ffn.lin1.weight",
    "blocks.{}.mlp.up.bias": "distilbert.transformer.layer.{}.ffn.lin1.bias",
    "blocks.{}.mlp.down.weight": "distilbert.transformer.layer.{}.ffn.lin2.weight",
    "blocks.{}.mlp.down.bias": "distilbert.transformer.layer.{}.ffn.lin2.bias",
    "blocks.{}.norm_2.weight": "distilbert.transformer.layer.{}.output_layer_norm.weight",
    "blocks.{}.norm_2.bias": "distilbert.transformer.layer.{}.output_layer_norm.bias",
    "pooler.weight": "pre_classifier.weight",
    "pooler.bias": "pre_classifier.bias",
    "heads.words.transform.weight": "vocab_transform.weight",
    "heads.words.transform.bias": "vocab_transform.bias",
    "heads.words.norm.weight": "vocab_layer_norm.weight",
    "heads.words.norm.bias": "vocab_layer_norm.bias",
    "heads.words.table.weight": "vocab_projector.weight",
    "heads.words.bias": "vocab_projector.bias",
    "heads.classes.output.weight": "classifier.weight",
    "heads.classes.output.bias": "classifier.bias",
    "heads.tags.output.weight": "classifier.weight",
    "heads.tags.output.bias": "classifier.bias",
    "heads.answer.output.weight": "qa_outputs.weight",
    "heads.answer.output.bias": "qa_outputs.bias",
}
MARKS = {"words": "vocab_transform.weight", "classes": "classifier.weight", "answer": "qa_outputs.weight"}


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
        The model, with the heads ``words``, ``classes``, ``tags`` and ``answer`` of which there are weights.
    """
    d_model, context = fields.size("dim"), fields.size("max_position_embeddings")
    sizes = fields.layer_sizes("dim", "n_heads", fields.size("hidden_dim"))
    pooled = NAMES["pooler.weight"] in tensors
    heads = read_heads(fields, tensors, MARKS, pooled=pooled)
    return EncoderConfig(
        vocab_size=fields.size("vocab_size"),
        d_model=d_model,
        context=context,
        layers=(sizes,) * fields.blocks("n_layers"),
        heads=heads,
        n_types=0,
        activation=fields.choice("activation", ACTIVATIONS, "gelu"),
        pooler=pooled or any(head.kind == "sequence" for head in heads),
        pooler_activation="relu",
        tied=fields.flag("tie_word_embeddings", True),
        norm_eps=NORM_EPS,
        dropout=fields.rate("dropout", 0.1),
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
        Code ``config_invalid``: no DistilBERT is like this.
    """
    if config.pooler != any(head.kind == "sequence" for head in config.heads):
        raise ConfigError("config_invalid", "a DistilBERT has a pooler if, and only if, it tells classes of texts")
    sizes = config.layers[0]
    return {
        **write_heads(config, "DistilBert"),
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context,
        "dim": config.d_model,
        "n_layers": config.n_layers,
        "n_heads": sizes.n_heads,
        "hidden_dim": sizes.d_ff,
        "activation": named(ACTIVATIONS, config.activation),
        "tie_word_embeddings": config.tied,
        "dropout": config.dropout,
        "attention_dropout": 0.0,
        **write_sentence(config),
    }


DistilBERT = Published("distilbert", "encoder", read, write, NAMES, prefix="distilbert.", passed_over=("position_ids",))
