"""BERT, as published: Tiny to Base, and the MiniLM sentence encoders.

References
----------
.. [1] Devlin, Chang, Lee, Toutanova (2018), "BERT", arXiv 1810.04805.
.. [2] Turc, Chang, Lee, Toutanova (2019), "Well-read students learn better", arXiv 1908.08962: Tiny to Medium.
.. [3] Wang et al. (2020), "MiniLM", arXiv 2002.10957.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from minislm.errors import ConfigError
from minislm.models.encoder import EncoderConfig
from minislm.models.fields import Fields
from minislm.models.published import Published, named
from minislm.models.published_encoder import ACTIVATIONS, read_heads, read_sentence, write_heads, write_sentence

NAMES = {
    "embedding.weight": "bert.embeddings.word_embeddings.weight",
    "positions.weight": "bert.embeddings.position_embeddings.weight",
    "types.weight": "bert.embeddings.token_type_embeddings.weight",
    "embedding_norm.weight": "bert.embeddings.LayerNorm.weight",
    "embedding_norm.bias": "bert.embeddings.LayerNorm.bias",
    "blocks.{}.attention.query.weight": "bert.encoder.layer.{}.attention.self.query.weight",
    "blocks.{}.attention.query.bias": "bert.encoder.layer.{}.attention.self.query.bias",
    "blocks.{}.attention.key.weight": "bert.encoder.layer.{}.attention.self.key.weight",
    "blocks.{}.attention.key.bias": "bert.encoder.layer.{}.attention.self.key.bias",
    "blocks.{}.attention.value.weight": "bert.encoder.layer.{}.attention.self.value.weight",
    "blocks.{}.attention.value.bias": "bert.encoder.layer.{}.attention.self.value.bias",
    "blocks.{}.attention.output.weight": "bert.encoder.layer.{}.attention.output.dense.weight",
    "blocks.{}.attention.output.bias": "bert.encoder.layer.{}.attention.output.dense.bias",
    "blocks.{}.norm_1.weight": "bert.encoder.layer.{}.attention.output.LayerNorm.weight",
    "blocks.{}.norm_1.bias": "bert.encoder.layer.{}.attention.output.LayerNorm.bias",
    "blocks.{}.mlp.up.weight": "bert.encoder.layer.{}.intermediate.dense.weight",
    "blocks.{}.mlp.up.bias": "bert.encoder.layer.{}.intermediate.dense.bias",
    "blocks.{}.mlp.down.weight": "bert.encoder.layer.{}.output.dense.weight",
    "blocks.{}.mlp.down.bias": "bert.encoder.layer.{}.output.dense.bias",
    "blocks.{}.norm_2.weight": "bert.encoder.layer.{}.output.LayerNorm.weight",
    "blocks.{}.norm_2.bias": "bert.encoder.layer.{}.output.LayerNorm.bias",
    "pooler.weight": "bert.pooler.dense.weight",
    "pooler.bias": "bert.pooler.dense.bias",
    "heads.words.transform.weight": "cls.predictions.transform.dense.weight",
    "heads.words.transform.bias": "cls.predictions.transform.dense.bias",
    "heads.words.norm.weight": "cls.predictions.transform.LayerNorm.weight",
    "heads.words.norm.bias": "cls.predictions.transform.LayerNorm.bias",
    "heads.words.table.weight": "cls.predictions.decoder.weight",
    "heads.words.bias": "cls.predictions.decoder.bias",
    "heads.next.output.weight": "cls.seq_relationship.weight",
    "heads.next.output.bias": "cls.seq_relationship.bias",
    "heads.classes.output.weight": "classifier.weight",
    "heads.classes.output.bias": "classifier.bias",
    "heads.tags.output.weight": "classifier.weight",
    "heads.tags.output.bias": "classifier.bias",
    "heads.answer.output.weight": "qa_outputs.weight",
    "heads.answer.output.bias": "qa_outputs.bias",
}
MARKS = {name: NAMES[f"heads.{name}.output.weight"] for name in ("next", "classes", "answer")}
MARKS["words"] = NAMES["heads.words.transform.weight"]


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
    fields.expect("is_decoder", False)
    fields.expect("add_cross_attention", False)
    fields.expect("position_embedding_type", "absolute")
    d_model, context = fields.size("hidden_size"), fields.size("max_position_embeddings")
    sizes = fields.layer_sizes("hidden_size", "num_attention_heads", fields.size("intermediate_size"))
    pooled = any(name.endswith("pooler.dense.weight") for name in tensors)
    heads = read_heads(fields, tensors, MARKS, pooled=pooled)
    return EncoderConfig(
        vocab_size=fields.size("vocab_size"),
        d_model=d_model,
        context=context,
        layers=(sizes,) * fields.blocks("num_hidden_layers"),
        heads=heads,
        n_types=fields.whole("type_vocab_size", 2),
        activation=fields.choice("hidden_act", ACTIVATIONS, "gelu"),
        pooler=pooled or any(head.kind == "sequence" for head in heads),
        tied=fields.flag("tie_word_embeddings", True),
        norm_eps=fields.positive("layer_norm_eps", 1e-12),
        dropout=fields.rate("hidden_dropout_prob", 0.1),
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
        Code ``config_invalid``: no BERT is like this.
    """
    if not config.n_types:
        raise ConfigError("config_invalid", "every BERT tells texts apart")
    sizes = config.layers[0]
    return {
        **write_heads(config, "Bert"),
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": sizes.n_heads,
        "intermediate_size": sizes.d_ff,
        "type_vocab_size": config.n_types,
        "hidden_act": named(ACTIVATIONS, config.activation),
        "layer_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": 0.0,
        **write_sentence(config),
    }


BERT = Published(
    "bert",
    "encoder",
    read,
    write,
    NAMES,
    prefix="bert.",
    passed_over=("position_ids", "cls.predictions.bias"),
)
