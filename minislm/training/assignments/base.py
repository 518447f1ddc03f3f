"""What every assignment has: its files, what is held out, and the steps from files to a judged model."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from minislm.config import Head
from minislm.errors import DataError, UnsupportedError
from minislm.language_model import LanguageModel
from minislm.models.encoder import Encoder
from minislm.text.examples import USUAL, Fields
from minislm.training.data import TrainingData

HELD_OUT = 0.1  # of the examples, unless they stand in files of their own
JUDGED = 1000  # held-out examples, at most, when training is done

Example = TypeVar("Example")


@dataclass(frozen=True)
class Files:
    """Where an assignment stands.

    Parameters
    ----------
    paths : tuple of Path
        What to train on; empty, for tasks on plain text: what this Python carries.
    held_out : tuple of Path
        What to be examined with; empty: a tenth of the examples, chosen by their hashes.
    fields : Fields
        Names in the files.
    cut : bool
        Whether texts that are too long for the model are cut. False: they are an error.
    """

    paths: tuple[Path, ...] = ()
    held_out: tuple[Path, ...] = ()
    fields: Fields = USUAL
    cut: bool = False


class Assignment(ABC):
    """What a model is to learn.

    Attributes
    ----------
    family : str
        Of the models that learn it.
    """

    family: ClassVar[str]

    @classmethod
    @abstractmethod
    def read(cls, task: Sequence[str], files: Files) -> Self:
        """Read the files.

        Parameters
        ----------
        task : sequence of str
            The parts of a key of `TASKS`.
        files : Files
            Where it stands.

        Returns
        -------
        Assignment
            Checked.
        """

    @abstractmethod
    def texts(self) -> list[str]:
        """Return all texts to train on, from which a tokenizer can learn.

        Returns
        -------
        list of str
            Both of pairs.
        """

    def heads(self) -> tuple[Head, ...]:
        """Return the heads that an encoder needs for it.

        Returns
        -------
        tuple of Head
            None for models of other families.
        """
        return ()

    @abstractmethod
    def data(self, lm: LanguageModel) -> TrainingData:
        """Make the examples for a model.

        Parameters
        ----------
        lm : LanguageModel
            A fresh one with `heads`, or a `prepared` one.

        Returns
        -------
        TrainingData
            To train on.

        Raises
        ------
        DataError, ConfigError
            Texts, labels and model do not fit together.
        """

    @abstractmethod
    def judged(self, lm: LanguageModel) -> dict[str, Any]:
        """Judge a trained model by what was held out.

        Parameters
        ----------
        lm : LanguageModel
            The model.

        Returns
        -------
        dict of str to float
            The task's figures by name, on at most `JUDGED` examples.
        """

    def prepared(self, lm: LanguageModel, seed: int) -> LanguageModel:
        """Give a model that was trained before what it needs for this.

        Parameters
        ----------
        lm : LanguageModel
            Any.
        seed : int
            New heads are a function of it.

        Returns
        -------
        LanguageModel
            `lm`, of an encoder with the heads needed; its own ones stay where they know all the labels.

        Raises
        ------
        UnsupportedError
            Code ``wrong_family``.
        """
        if lm.model.config.type != self.family:
            raise UnsupportedError(
                "wrong_family", f"this task is for a model of type {self.family}, not {lm.model.config.type}"
            )
        if not isinstance(lm.model, Encoder):
            return lm
        own = {head.name: head for head in lm.model.config.heads}
        heads = [own[head.name] if _knows(own.get(head.name), head) else head for head in self.heads()]
        return dataclasses.replace(lm, model=lm.model.with_heads(heads, seed))


def split(examples: Sequence[Example], text: Callable[[Example], str]) -> tuple[list[Example], list[Example]]:
    """Hold out about a tenth of some examples, chosen by the hashes of their texts, equal texts together.

    Parameters
    ----------
    examples : sequence
        Of any kind.
    text : callable
        Returns the text of an example.

    Returns
    -------
    train : list
        What is left, in its order.
    held_out : list
        What was chosen.

    Raises
    ------
    DataError
        Code ``text_too_short``: fewer than two different texts.
    """
    texts = sorted({text(example) for example in examples}, key=lambda t: hashlib.sha256(t.encode()).digest())
    if len(texts) < 2:
        raise DataError("text_too_short", f"{len(texts)} different texts are too few to learn from and to hold one out")
    chosen = set(texts[: math.ceil(HELD_OUT * len(texts))])
    return [e for e in examples if text(e) not in chosen], [e for e in examples if text(e) in chosen]


def _knows(own: Head | None, needed: Head) -> bool:
    """Tell whether a head of the model can say all that is needed."""
    if own is None or (own.kind, own.problem) != (needed.kind, needed.problem):
        return False
    return set(needed.labels) <= set(own.labels)
