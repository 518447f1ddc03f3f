"""`train`: a language model trained on a corpus or on examples of a task; `create`: a fresh one made for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from minislm.language_model import LanguageModel
from minislm.models import model_class
from minislm.text.corpus import Corpus
from minislm.text.tokenizer import Tokenizer
from minislm.training.data import TokenWindows, TrainingData
from minislm.training.loop import FitResult, fit
from minislm.training.settings import TrainSettings

LEARNED = ("bpe", "wordpiece")  # kinds of tokenizer whose size is chosen


def create(
    texts: Corpus | Iterable[str],
    *,
    family: str = "decoder",
    tokenizer: str | None = None,
    lowercase: bool = False,
    vocab_size: int = 1024,
    seed: int = 0,
    **sizes: Any,
) -> LanguageModel:
    """Make a tokenizer for some texts, and a model with random parameters.

    Parameters
    ----------
    texts : Corpus or iterable of str
        What the tokenizer learns from; of a corpus its training part.
    family : {"decoder", "encoder", "transformer"}
        Kind of model.
    tokenizer : {"bpe", "bytes", "characters", "wordpiece"}, optional
        Kind of tokenizer; default: "wordpiece" for encoders, "bpe" for others.
    lowercase : bool
        Whether a "wordpiece" tokenizer takes all letters for small ones.
    vocab_size : int
        Tokens of a tokenizer that learns them.
    seed : int
        The parameters are a function of it.
    **sizes
        As of the family's ``Config.uniform``, without ``vocab_size``; of an encoder the ``heads`` too.

    Returns
    -------
    LanguageModel
        Not trained yet.
    """
    kind = tokenizer or ("wordpiece" if family == "encoder" else "bpe")
    made = Tokenizer.train(
        texts.train if isinstance(texts, Corpus) else texts,
        vocab_size if kind in LEARNED else None,
        kind=kind,
        encoder=family == "encoder",
        lowercase=lowercase,
    )
    model_type, config_type = model_class(family)
    config: Any = config_type
    return LanguageModel(model_type.create(config.uniform(vocab_size=made.vocab_size, **sizes), seed), made)


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
    data: Corpus | TrainingData,
    settings: TrainSettings,
    *,
    directory: str | Path | None = None,
    resume: bool = True,
    report: Callable[[Any], None] | None = None,
    notice: Callable[[str], None] | None = None,
) -> tuple[LanguageModel, FitResult]:
    """Train a language model.

    Parameters
    ----------
    lm : LanguageModel
        Where to begin: a fresh one of `create`, or one that was trained before. It stays as it is.
    data : Corpus or TrainingData
        A corpus, to learn to predict it; or examples of a task, encoded by the model's tokenizer.
    settings : TrainSettings
        How to train.
    directory : path, optional
        Where checkpoints and the record stand, from which an interrupted run goes on; None: nowhere.
    resume : bool
        False: refuse a directory that holds checkpoints, instead of going on from them.
    report : callable, optional
        Called with a `StepRecord` after each step.
    notice : callable, optional
        Called, before the first step, with what was noticed when resuming.

    Returns
    -------
    trained : LanguageModel
        The model after training, with the same tokenizer and settings.
    result : FitResult
        The record of the run.
    """
    if isinstance(data, Corpus):
        data = windows(lm, data)
    result = fit(lm.model, data, settings, directory=directory, resume=resume, report=report, notice=notice)
    return dataclasses.replace(lm, model=result.model), result
