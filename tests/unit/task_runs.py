"""A tiny model and its examples for every task, for the tests of training."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from minislm.models.encoder import Encoder, EncoderConfig
from minislm.models.transformer import Transformer, TransformerConfig
from minislm.text.examples import LabelledText, TextPair
from minislm.text.records import Record
from minislm.text.spans import Span
from minislm.text.tokenizer import Tokenizer
from minislm.training.data import TrainingData
from minislm.training.tasks.labelled import LabelledTexts, heads_for
from minislm.training.tasks.masked import MaskedWindows
from minislm.training.tasks.mixture import Mixture
from minislm.training.tasks.sequences import SequencePairs

CITIES, VERBS, CONTEXT = ("Bonn", "New York", "Oslo", "Rome"), ("fly", "walk", "go"), 24
SIZES = {"d_model": 8, "n_layers": 2, "n_heads": 2, "d_ff": 12, "dropout": 0.2}


def record(line):
    return Record({}, Path("texts.jsonl"), line)


def labelled_texts(n=40):
    """Texts of different lengths with a class and a span each."""
    found = []
    for i in range(n):
        verb, city = VERBS[i % 3], CITIES[i * i % 4]
        text = f"{verb} to {city}{' please' * (i % 4)}"
        start = text.index(city)
        found.append(LabelledText(record(i + 1), text, None, verb, (Span(start, start + len(city), "city"),)))
    return found


def questions(n=20):
    """Questions, each with a context that has its answer or has none."""
    found = []
    for i in range(n):
        city = CITIES[i % 4]
        context = f"I {VERBS[i % 3]} {'far ' * (i % 3)}to {city}"
        answers = (Span(len(context) - len(city), len(context), "answer"),) if i % 5 else ()
        found.append(LabelledText(record(i + 1), "where", context, answers=answers))
    return found


def pairs(n=40):
    return [TextPair(r, text, text[:4]) for r, text, *_ in labelled_texts(n)]


@cache
def tokenizer(encoder=True):
    texts = [text for _, text, pair, *_ in (*labelled_texts(), *questions()) for text in (text, pair or "")]
    return Tokenizer.train(texts, 70, kind="wordpiece") if encoder else Tokenizer.train(texts, 270)


def encoder(heads):
    config = EncoderConfig.uniform(vocab_size=tokenizer().vocab_size, context=CONTEXT, heads=tuple(heads), **SIZES)
    return Encoder.create(config, seed=3)


def split(examples, of):
    """The first three quarters to learn from, the rest to be judged on."""
    n = len(examples) * 3 // 4
    return TrainingData(of(examples[:n]), of(examples[n:]))


def labelled_run():
    heads = heads_for(labelled_texts())
    return encoder(heads), split(labelled_texts(), lambda part: LabelledTexts.of(part, tokenizer(), heads, CONTEXT))


def answer_run():
    heads = heads_for(questions())
    return encoder(heads), split(questions(), lambda part: LabelledTexts.of(part, tokenizer(), heads, CONTEXT))


def masked_examples(part, next_sentence=True):
    ids = tokenizer().encode_documents([text.text for text in part])
    return MaskedWindows(ids, tokenizer(), 16, next_sentence=next_sentence, rate=0.3)


def masked_run():
    data = split(labelled_texts(), masked_examples)
    return encoder(data.train.heads), data


def mixed_run():
    heads = heads_for(labelled_texts())

    def both(part):
        return Mixture(LabelledTexts.of(part, tokenizer(), heads, CONTEXT), masked_examples(part))

    data = split(labelled_texts(), both)
    return encoder([*heads, *data.train.parts[1].heads]), data


def sequence_run():
    config = TransformerConfig.uniform(vocab_size=tokenizer(False).vocab_size, context=CONTEXT, **SIZES)
    data = split(pairs(), lambda part: SequencePairs.of(part, tokenizer(False), CONTEXT))
    return Transformer.create(config, seed=3), data


RUNS = {
    "labelled": labelled_run,
    "answer": answer_run,
    "masked": masked_run,
    "mixed": mixed_run,
    "sequence": sequence_run,
}
