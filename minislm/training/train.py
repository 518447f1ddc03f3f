"""`train`: a language model trained on a corpus, and `create`, a fresh one made for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minislm.language_model import LanguageModel
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.text.corpus import Corpus
from minislm.text.tokenizer import Tokenizer
from minislm.training.data import TokenWindows, TrainingData
from minislm.training.loop import FitResult, fit
from minislm.training.settings import TrainSettings


def create(
    corpus: Corpus, *, tokenizer: str = "bpe", vocab_size: int = 1024, seed: int = 0, **sizes: Any
) -> LanguageModel:
    """Make a tokenizer for a corpus, and a decoder with random parameters.

    Parameters
    ----------
    corpus : Corpus
        The tokenizer learns from its training part.
    tokenizer : {"bpe", "bytes", "characters"}
        Kind of tokenizer.
    vocab_size : int
        Tokens of a BPE tokenizer.
    seed : int
        The parameters are a function of it.
    **sizes
        As of `DecoderConfig.uniform`, without ``vocab_size``.

    Returns
    -------
    LanguageModel
        Not trained yet.
    """
    made = Tokenizer.train(corpus.train, vocab_size=vocab_size if tokenizer == "bpe" else None, kind=tokenizer)
    return LanguageModel(Decoder.create(DecoderConfig.uniform(vocab_size=made.vocab_size, **sizes), seed), made)


def windows(lm: LanguageModel, corpus: Corpus) -> TrainingData:
    """Turn a corpus into what a model trains on and is examined with.

    Parameters
    ----------
    lm : LanguageModel
        Whose tokenizer and context.
    corpus : Corpus
        Text.

    Returns
    -------
    TrainingData
        Windows of the model's context over both parts.
    """
    train_ids, held_out_ids = (lm.tokenizer.encode_documents(part) for part in (corpus.train, corpus.held_out))
    context = lm.model.config.context
    return TrainingData(TokenWindows(train_ids, context), TokenWindows(held_out_ids, context))


def train(
    lm: LanguageModel,
    corpus: Corpus,
    settings: TrainSettings,
    *,
    directory: str | Path | None = None,
    report: Callable[[Any], None] | None = None,
) -> tuple[LanguageModel, FitResult]:
    """Train a language model to predict a corpus.

    Parameters
    ----------
    lm : LanguageModel
        Where to begin: a fresh one of `create`, or one that was trained before. It stays as it is.
    corpus : Corpus
        Text to train on and to be examined with.
    settings : TrainSettings
        How to train.
    directory : path, optional
        Where checkpoints and the record stand, from which an interrupted run goes on; None: nowhere.
    report : callable, optional
        Called with a `StepRecord` after each step.

    Returns
    -------
    trained : LanguageModel
        The model after training, with the same tokenizer and settings.
    result : FitResult
        The record of the run.
    """
    data = windows(lm, corpus)
    result = fit(lm.model, data, settings, directory=None if directory is None else Path(directory), report=report)
    return dataclasses.replace(lm, model=result.model), result
