"""Pairs: what an encoder-decoder is to make of a text: a translation, a summary, an event."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from minislm.evaluation.accuracy import accuracy
from minislm.evaluation.labelled import judge_pairs
from minislm.language_model import LanguageModel
from minislm.text.examples import TextPair, read_pairs
from minislm.training.assignments.base import JUDGED, Assignment, Files, split
from minislm.training.data import TrainingData
from minislm.training.tasks.sequences import SequencePairs


@dataclass(frozen=True)
class Pairs(Assignment):
    """Write the target of a source.

    Parameters
    ----------
    train, held_out : list of TextPair
        Sources and targets.
    cut : bool
        Whether long texts are cut.
    """

    family: ClassVar[str] = "transformer"
    train: list[TextPair]
    held_out: list[TextPair]
    cut: bool

    @classmethod
    def read(cls, task: Sequence[str], files: Files) -> Self:
        """Read pairs of texts."""
        train = read_pairs(files.paths, files.fields)
        if files.held_out:
            return cls(train, read_pairs(files.held_out, files.fields), files.cut)
        return cls(*split(train, lambda pair: pair.source), files.cut)

    def texts(self) -> list[str]:
        """Return both sides, which share one vocabulary."""
        return [text for pair in self.train for text in (pair.source, pair.target)]

    def data(self, lm: LanguageModel) -> TrainingData:
        """Encode both sides."""
        return TrainingData(self._examples(lm, self.train), self._examples(lm, self.held_out))

    def judged(self, lm: LanguageModel) -> dict[str, Any]:
        """Compare what the model writes, always taking the likeliest token, with held-out targets."""
        pairs, lm = self.held_out[:JUDGED], dataclasses.replace(lm, trained_for={})  # of no other task any more
        if importlib.util.find_spec("sacrebleu") is not None:
            return dict(judge_pairs(lm, pairs, n_beams=1))
        written = [found.text for found in lm.translate([pair.source for pair in pairs], n_beams=1)]
        return {"exact_match": accuracy([pair.target for pair in pairs], written)}

    def _examples(self, lm: LanguageModel, pairs: list[TextPair]) -> SequencePairs:
        start_id = lm.settings.start_id
        return SequencePairs.of(pairs, lm.tokenizer, lm.model.config.context, start_id=start_id, cut=self.cut)
