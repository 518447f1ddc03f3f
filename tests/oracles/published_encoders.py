"""The encoders of `minislm.models.PUBLISHED`, small and odd, with every head."""

from __future__ import annotations

from published import Case

BERT = {"vocab_size": 103, "hidden_size": 33, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 50}
BERT |= {"max_position_embeddings": 40, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
DISTILBERT = {"vocab_size": 97, "dim": 30, "n_layers": 2, "n_heads": 3, "hidden_dim": 41, "max_position_embeddings": 37}
DISTILBERT |= {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0, "qa_dropout": 0.0}
MOBILEBERT = {**BERT, "hidden_size": 35, "embedding_size": 13, "intra_bottleneck_size": 18, "intermediate_size": 23}
MOBILEBERT |= {"num_hidden_layers": 2, "num_feedforward_networks": 3}
THREE = {"num_labels": 3, "id2label": {0: "no", 1: "perhaps", 2: "yes"}, "label2id": {"no": 0, "perhaps": 1, "yes": 2}}
FAMILIES = {
    "bert": ("Bert", BERT, ("Model", "ForPreTraining", "ForNextSentencePrediction")),
    "distilbert": ("DistilBert", DISTILBERT, ("Model",)),
    "mobilebert": ("MobileBert", MOBILEBERT, ("Model", "ForPreTraining", "ForNextSentencePrediction")),
}
EVERY = ("ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
OTHERS = {
    "bert, untied": Case("BertForMaskedLM", "BertConfig", {**BERT, "tie_word_embeddings": False}),
    "bert, three types, relu": Case(
        "BertForTokenClassification",
        "BertConfig",
        {**BERT, **THREE, "type_vocab_size": 3, "hidden_act": "relu", "layer_norm_eps": 1e-3},
    ),
    "mobilebert, untied, one mlp": Case(
        "MobileBertForMaskedLM",
        "MobileBertConfig",
        {**MOBILEBERT, "tie_word_embeddings": False, "num_feedforward_networks": 1, "hidden_act": "gelu"},
    ),
    "mobilebert, first position": Case(
        "MobileBertForSequenceClassification",
        "MobileBertConfig",
        {**MOBILEBERT, **THREE, "classifier_activation": False},
    ),
    "distilbert, untied": Case(
        "DistilBertForMaskedLM", "DistilBertConfig", {**DISTILBERT, "tie_word_embeddings": False}
    ),
}


def labelled(ending):
    """The classes of those that have some."""
    return THREE if ending in ("ForSequenceClassification", "ForTokenClassification") else {}


CASES = {
    f"{family} {ending}": Case(f"{name}{ending}", f"{name}Config", {**values, **labelled(ending), "pad_token_id": None})
    for family, (name, values, further) in FAMILIES.items()
    for ending in (*further, *EVERY)
} | {name: case._replace(values={**case.values, "pad_token_id": None}) for name, case in OTHERS.items()}


def bert(d_model, n_layers):
    """Turc et al. (2019), table 1."""
    return {"hidden_size": d_model, "num_hidden_layers": n_layers, "num_attention_heads": d_model // 64} | {
        "intermediate_size": 4 * d_model
    }


SIZES = {  # the configs of published checkpoints, and how many million parameters these have without the heads
    "bert tiny": (Case("BertForPreTraining", "BertConfig", bert(128, 2)), 4.4),
    "bert mini": (Case("BertForPreTraining", "BertConfig", bert(256, 4)), 11.2),
    "bert small": (Case("BertForPreTraining", "BertConfig", bert(512, 4)), 28.8),
    "bert medium": (Case("BertForPreTraining", "BertConfig", bert(512, 8)), 41.4),
    "bert base": (Case("BertForPreTraining", "BertConfig", bert(768, 12)), 109.5),
    "distilbert": (Case("DistilBertForMaskedLM", "DistilBertConfig", {}), 66.4),
    "mobilebert": (Case("MobileBertForPreTraining", "MobileBertConfig", {"classifier_activation": False}), 24.6),
}
