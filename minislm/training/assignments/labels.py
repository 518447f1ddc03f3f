"""Labels: the class, the spans or the answer that an encoder is to find in a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from minislm.config import Head
from minislm.evaluation.labelled import judge_labelled
from minislm.language_model import LanguageModel
from minislm.text.examples import LabelledText, read_labelled
from minislm.training.assignments.base import JUDGED, Assignment, Files, split
from minislm.training.data import TrainingData
from minislm.training.tasks.labelled import LabelledTexts, heads_for


@dataclass(frozen=True)
class Labels(Assignment):
    """Say what a text is labelled with.

    Parameters
    ----------
    train, held_out : list of LabelledText
        The texts.
    known : tuple of Head
        Heads for all labels that may occur.
    cut : bool
        Whether long texts are cut.
    """

    family: ClassVar[str] = "encoder"
    train: list[LabelledText]
    held_out: list[LabelledText]
    known: tuple[Head, ...]
    cut: bool

    @classmethod
    def read(cls, task: Sequence[str], files: Files) -> Self:
        """Read labelled texts; those in files of their own may have no other labels than those to train on."""
        train = read_labelled(files.paths, task, files.fields)
        heads = heads_for(train)
        if files.held_out:
            return cls(train, read_labelled(files.held_out, task, files.fields), heads, files.cut)
        return cls(*split(train, _own_text), heads, files.cut)

    def texts(self) -> list[str]:
        """Return first and second texts."""
        return [text for example in self.train for text in (example.text, example.pair) if text]

    def heads(self) -> tuple[Head, ...]:
        """Return a head for each kind of label."""
        return self.known

    def data(self, lm: LanguageModel) -> TrainingData:
        """Encode the texts for the heads of the model."""
        return TrainingData(self._examples(lm, self.train), self._examples(lm, self.held_out))

    def judged(self, lm: LanguageModel) -> dict[str, Any]:
        """Compare what the model says of held-out texts with their labels."""
        return dict(judge_labelled(lm, self.held_out[:JUDGED], cut=self.cut))

    def _examples(self, lm: LanguageModel, texts: list[LabelledText]) -> LabelledTexts:
        config: Any = lm.model.config
        return LabelledTexts.of(texts, lm.tokenizer, config.heads, config.context, cut=self.cut)


def _own_text(example: LabelledText) -> str:
    """Return what must not be seen in training if it is held out: of questions, the context, which many may share."""
    return example.text if example.answers is None else str(example.pair)
