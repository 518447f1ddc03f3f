"""Assignments on plain text: predict what follows, or guess what is hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from minislm.config import Head
from minislm.evaluation.quality import evaluate
from minislm.language_model import LanguageModel
from minislm.text.corpus import Corpus, from_files, python_corpus, read_documents
from minislm.training.assignments.base import JUDGED, Assignment, Files
from minislm.training.data import TrainingData
from minislm.training.tasks.masked import MASKED, NEXT, MaskedWindows
from minislm.training.train import windows


@dataclass(frozen=True)
class NextTokens(Assignment):
    """Predict the next token of a text.

    Parameters
    ----------
    corpus : Corpus
        The text.
    """

    family: ClassVar[str] = "decoder"
    corpus: Corpus

    @classmethod
    def read(cls, task: Sequence[str], files: Files) -> Self:
        """Read documents."""
        return cls(_corpus(files))

    def texts(self) -> list[str]:
        """Return the documents to train on."""
        return list(self.corpus.train)

    def data(self, lm: LanguageModel) -> TrainingData:
        """Cut the text into windows."""
        return windows(lm, self.corpus)

    def judged(self, lm: LanguageModel) -> dict[str, Any]:
        """Measure the loss of all held-out tokens."""
        found = evaluate(lm, self.corpus.held_out)
        return {"held_out_loss": found.nll_nats, "perplexity": found.perplexity, "bits_per_byte": found.bits_per_byte}


@dataclass(frozen=True)
class MaskedWords(Assignment):
    """Guess hidden tokens of a text, and perhaps whether one text follows another.

    Parameters
    ----------
    corpus : Corpus
        The text.
    next_sentence : bool
        Whether to learn that too.
    """

    family: ClassVar[str] = "encoder"
    corpus: Corpus
    next_sentence: bool

    @classmethod
    def read(cls, task: Sequence[str], files: Files) -> Self:
        """Read documents."""
        return cls(_corpus(files), "next-sentence" in task)

    def texts(self) -> list[str]:
        """Return the documents to train on."""
        return list(self.corpus.train)

    def heads(self) -> tuple[Head, ...]:
        """Return one head, or two."""
        return (MASKED, NEXT) if self.next_sentence else (MASKED,)

    def data(self, lm: LanguageModel) -> TrainingData:
        """Cut the text into windows."""
        return TrainingData(self._windows(lm, self.corpus.train), self._windows(lm, self.corpus.held_out))

    def judged(self, lm: LanguageModel) -> dict[str, Any]:
        """Measure the loss of a guess."""
        examples = self._windows(lm, self.corpus.held_out)
        return {"held_out_loss": examples.objective.judge(lm.model, examples.evaluation(8, JUDGED // 8))}

    def _windows(self, lm: LanguageModel, documents: Sequence[str]) -> MaskedWindows:
        ids, context = lm.tokenizer.encode_documents(documents), lm.model.config.context
        return MaskedWindows(ids, lm.tokenizer, context, next_sentence=self.next_sentence)


def _corpus(files: Files) -> Corpus:
    if not files.paths:
        return python_corpus()
    if not files.held_out:
        return from_files(files.paths, field=files.fields.text)
    return Corpus(*(tuple(read_documents(part, field=files.fields.text)) for part in (files.paths, files.held_out)))
