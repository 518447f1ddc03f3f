"""How well a model does the task that a file of labelled texts or of pairs of texts asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from minislm.errors import GenerationError
from minislm.evaluation.accuracy import accuracy, frames
from minislm.evaluation.answers import answer_scores
from minislm.evaluation.spans import require_aligned, span_scores
from minislm.evaluation.translation import bleu
from minislm.inference.answering import answers
from minislm.inference.generation import source_ids
from minislm.inference.reading import encoded_texts, encoder_of, head_of
from minislm.text.examples import LabelledText, TextPair
from minislm.text.records import Record
from minislm.text.spans import BIO, OUTSIDE, Span

BESIDE = 3  # tokens that a question leaves room for: two of its context, and the one that ends it

if TYPE_CHECKING:
    from minislm.language_model import LanguageModel


def judge_labelled(lm: LanguageModel, examples: Sequence[LabelledText], *, cut: bool = False) -> dict[str, float]:
    """Judge an encoder on texts that are all labelled for the same tasks.

    Parameters
    ----------
    lm : LanguageModel
        With one head for each task.
    examples : sequence of LabelledText
        What `text.examples.read_labelled` returns.
    cut : bool
        Whether texts to be classed or tagged that are longer than the model's context lose their end, and the spans
        there count as not found. False: they are an error.

    Returns
    -------
    dict of str to float
        Of those that apply: ``accuracy`` of the class; ``span_precision``, ``span_recall`` and ``span_f1``;
        ``frame_accuracy``, class and all spans right; ``exact_match`` and ``answer_f1``.

    Raises
    ------
    DataError
        Code ``empty_text``: no examples. With file and line, code ``too_long``: a text does not fit into the model;
        code ``unknown_label``: it has no such class or span, so that nothing it says could be right.
    MinislmError
        As the verbs of `LanguageModel`.
    """
    require_aligned(examples, examples)
    encoder_of(lm, "judging labelled texts")
    figures: dict[str, float] = {}
    texts = [example.text for example in examples]
    pairs = [example.pair for example in examples if example.pair is not None]
    if examples[0].answers is None and not cut:
        for example, encoded in zip(examples, encoded_texts(lm, texts, pairs or None), strict=True):
            _check_length(example.record, encoded.ids, lm, " or let it be cut (--cut)")
    if examples[0].label is not None:
        labels = [example.label or "" for example in examples]
        known = head_of(lm, "classify", "sequence").labels
        for example in examples:
            _check_known(example, "class", example.label, known)
        classes = [found.label for found in lm.classify(texts, pairs or None, cut=cut)]
        figures["accuracy"] = accuracy(labels, classes)
    if examples[0].spans is not None:
        spans = [example.spans or () for example in examples]
        tags = [tag for tag in head_of(lm, "tag", "token").labels if tag != OUTSIDE]
        known = tuple(dict.fromkeys(tag[2:] if tag[:2] in BIO else tag for tag in tags))
        for example in examples:
            for span in example.spans or ():
                _check_known(example, "span", span.label, known)
        found = [[Span(*entity[:3]) for entity in entities] for entities in lm.tag(texts, cut=cut)]
        scores = span_scores(spans, found)
        figures |= {f"span_{name}": getattr(scores, name) for name in ("precision", "recall", "f1")}
        if "accuracy" in figures:
            figures["frame_accuracy"] = accuracy(frames(labels, spans), frames(classes, found))
    if examples[0].answers is not None:
        contexts = [example.pair or "" for example in examples]
        right = [
            [context[start:end] for start, end, _ in example.answers or ()]
            for example, context in zip(examples, contexts, strict=True)
        ]
        try:
            given = [found.text for found in answers(lm, texts, contexts)]
        except GenerationError:
            for example, question in zip(examples, encoded_texts(lm, texts), strict=True):
                _check_length(example.record, question.ids, lm, " or remove the record", beside=BESIDE)
            raise
        figures["exact_match"], figures["answer_f1"] = dataclasses.astuple(answer_scores(right, given))
    return figures


def _check_length(record: Record, ids: Sequence[int], lm: LanguageModel, way_out: str, beside: int = 0) -> None:
    """Refuse what the model cannot read together with so many tokens beside it."""
    longest = lm.model.config.context - beside
    if len(ids) > longest:
        raise record.error(
            "too_long",
            f"{len(ids)} tokens, special ones among them, and the model has room for {longest}. Shorten the text,"
            f"{way_out}",
        )


def _check_known(example: LabelledText, what: str, label: str | None, known: Sequence[str]) -> None:
    if label not in known:
        raise example.record.error(
            "unknown_label",
            f"the model knows no {what} {label!r}, only {', '.join(known)}; mend the label, or remove the record",
        )


def judge_pairs(
    lm: LanguageModel, examples: Sequence[TextPair], *, cut: bool = False, **options: Any
) -> dict[str, Any]:
    """Judge an encoder-decoder on pairs of texts.

    Parameters
    ----------
    lm : LanguageModel
        An encoder-decoder.
    examples : sequence of TextPair
        What `text.examples.read_pairs` returns.
    cut : bool
        Whether a source that is longer than the model's context loses its end. False: it is an error.
    **options : Any
        Of `LanguageModel.translate`.

    Returns
    -------
    dict of str to float or str
        ``exact_match``, the part of the texts that equal their target; ``bleu`` and its ``bleu_signature``.

    Raises
    ------
    DataError
        Code ``empty_text``: no examples; code ``too_long``, with file and line: a source does not fit into the model.
    UnsupportedError
        Codes ``not_an_encoder_decoder`` and ``eval_extra_missing``.
    GenerationError
        As `LanguageModel.translate`.
    """
    targets = [example.target for example in examples]
    sources = [example.source for example in examples]
    for example in () if cut else examples:
        ids = source_ids(example.source, lm.tokenizer)
        _check_length(example.place("source"), ids, lm, " or let it be cut (--cut)")
    written = [found.text for found in lm.translate(sources, cut=cut, **options)]
    quality = bleu(targets, written)
    return {"exact_match": accuracy(targets, written), "bleu": quality.score, "bleu_signature": quality.signature}
