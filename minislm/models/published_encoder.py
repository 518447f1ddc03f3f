"""What published encoders have in common: the heads that a checkpoint holds, their labels, and vectors of texts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from minislm.config import Head
from minislm.errors import ConfigError, UnsupportedError
from minislm.models.encoder import EncoderConfig
from minislm.models.fields import Fields
from minislm.models.published import named

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
NEXT = ("next", "random")  # whether the second text goes on where the first one ends
ENDINGS = {  # of a class of the other library, by the names of our heads
    (): "Model",
    ("words",): "ForMaskedLM",
    ("words", "next"): "ForPreTraining",
    ("next",): "ForNextSentencePrediction",
    ("classes",): "ForSequenceClassification",
    ("tags",): "ForTokenClassification",
    ("answer",): "ForQuestionAnswering",
}
PROBLEMS = {f"{name}_classification": name for name in ("single_label", "multi_label")} | {"regression": "regression"}
MAX_LABELS = 100_000  # a config may claim any number


def read_heads(fields: Fields, tensors: Collection[str], marks: Mapping[str, str], *, pooled: bool) -> tuple[Head, ...]:
    """Tell which heads a checkpoint holds.

    Parameters
    ----------
    fields : Fields
        Of its config.json.
    tensors : collection of str
        What it holds.
    marks : mapping of str to str
        A tensor that every head has, by the head's name: ``words``, ``next``, ``classes``, ``answer``.
    pooled : bool
        Whether it holds a pooler: a class is then taken to be a text's rather than a token's, where config.json says
        neither.

    Returns
    -------
    tuple of Head
        ``words`` (masked), ``next`` and ``classes`` (sequence) or ``tags`` (token), ``answer`` (span).

    Raises
    ------
    UnsupportedError
        Code ``unsupported_config``: a head of another kind.
    ConfigError
        Code ``config_invalid``: labels that are none.
    """
    named = [str(name) for name in fields.list("architectures", [])]
    if any(name.endswith("ForMultipleChoice") for name in named):
        raise UnsupportedError(
            "unsupported_config", f"{fields.origin}: architectures is {named}; minislm runs no multiple choice"
        )
    found = []
    if marks["words"] in tensors:
        found.append(Head("words", "masked"))
    if marks.get("next") in tensors:
        found.append(Head("next", "sequence", NEXT))
    if marks["classes"] in tensors:
        of_tokens = any(name.endswith(ENDINGS[("tags",)]) for name in named)
        of_texts = any(name.endswith(ENDINGS[("classes",)]) for name in named) or pooled
        by_token = of_tokens or not of_texts
        labels = _labels(fields)
        found.append(
            Head("tags", "token", labels)
            if by_token
            else Head("classes", "sequence", labels, fields.choice("problem_type", PROBLEMS, _usual_problem(labels)))
        )
    if marks["answer"] in tensors:
        found.append(Head("answer", "span"))
    return tuple(found)


def write_heads(config: EncoderConfig, name: str) -> dict[str, Any]:
    """Say the heads in config.json's words; undoes `read_heads`.

    Parameters
    ----------
    config : EncoderConfig
        The model.
    name : str
        What the classes of the other library begin with.

    Returns
    -------
    dict
        Values.

    Raises
    ------
    ConfigError
        Code ``config_invalid``: no class has these heads.
    """
    heads = tuple(head.name for head in config.heads)
    if heads not in ENDINGS:
        raise ConfigError("config_invalid", f"no {name} has the heads {heads}; there are {sorted(ENDINGS)}")
    values: dict[str, Any] = {"architectures": [name + ENDINGS[heads]]}
    if heads in (("classes",), ("tags",)):
        labels = config.heads[0].labels
        values["id2label"] = {str(number): label for number, label in enumerate(labels)}
        values["label2id"] = {label: number for number, label in enumerate(labels)}
        if (problem := named(PROBLEMS, config.heads[0].problem)) != _usual_problem(labels):
            values["problem_type"] = problem
    return values


def read_sentence(fields: Fields, d_model: int, context: int) -> dict[str, Any]:
    """Say how texts become vectors, where the folder says so (`minislm.files.sentence_folder`).

    Parameters
    ----------
    fields : Fields
        Of config.json, with the folder's ``sentence`` among them.
    d_model, context : int
        Width of the stream, and positions.

    Returns
    -------
    dict
        Fields of `EncoderConfig`.

    Raises
    ------
    ConfigError
        Code ``config_invalid``: vectors of another width.
    """
    sentence = fields.record("sentence")
    if sentence is None:
        return {}
    if (width := sentence.whole("width", d_model)) != d_model:
        raise ConfigError("config_invalid", f"{sentence.origin}: vectors have {d_model} numbers, not {width}")
    return {
        "pooling": sentence.choice("pooling", {"first": "first", "mean": "mean"}),
        "normalized": sentence.flag("normalized"),
        "embed_tokens": min(sentence.whole("max_tokens", context), context),
    }


def write_sentence(config: EncoderConfig) -> dict[str, Any]:
    """Undo `read_sentence`.

    Parameters
    ----------
    config : EncoderConfig
        The model.

    Returns
    -------
    dict
        Values; empty where nothing but a model that was not trained for vectors of texts is to be said.

    Raises
    ------
    ConfigError
        Code ``config_invalid``: heads that read the mean, as no published one does.
    """
    if config.pooling != "first" and any(head.kind == "sequence" for head in config.heads):
        raise ConfigError("config_invalid", "sequence heads of published encoders read the first position")
    if config.embed_tokens is None:
        return {}
    return {
        "sentence": {
            "pooling": config.pooling,
            "normalized": config.normalized,
            "max_tokens": config.embed_tokens,
            "width": config.d_model,
        }
    }


def _usual_problem(labels: Collection[str]) -> str:
    """Name the problem of a head that config.json says nothing of: a single label has a probability of its own."""
    return "multi_label_classification" if len(labels) == 1 else "single_label_classification"


def _labels(fields: Fields) -> tuple[str, ...]:
    """Read the names of classes."""
    record = fields.record("id2label")
    if record is None:
        n_labels = fields.size("num_labels", 2)
        if not 1 <= n_labels <= MAX_LABELS:
            raise ConfigError("config_invalid", f"{fields.origin}: num_labels is {n_labels}, not 1 to {MAX_LABELS}")
        return tuple(f"LABEL_{number}" for number in range(n_labels))
    numbers = [str(number) for number in range(len(record.values))]
    if set(numbers) != set(record.values) or not all(isinstance(label, str) for label in record.values.values()):
        raise ConfigError("config_invalid", f"{record.origin} must name the classes 0 to {len(numbers) - 1}")
    return tuple(record.values[number] for number in numbers)
