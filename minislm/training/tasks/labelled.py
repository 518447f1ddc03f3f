"""LabelledTexts: texts, or pairs of them, with what the heads of an encoder should say about each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from minislm.config import Head
from minislm.errors import ConfigError, DataError, UnsupportedError, UsageError, listed
from minislm.text.examples import LabelledText
from minislm.text.pairs import Encoded
from minislm.text.spans import bio_labels, tags_of
from minislm.text.tokenizer import Tokenizer
from minislm.training.data import Batch, check_ids, check_length
from minislm.training.objective import NOT_JUDGED, Tasks
from minislm.training.tasks.bucketed import Bucketed
from minislm.training.tasks.ragged import Ragged
from minislm.weights.base import Arrays

LABEL, TAGS, ANSWER = "label", "tags", "answer"  # names of the heads


class LabelledTexts(Bucketed):
    """Texts with labels for one head or several.

    Parameters
    ----------
    ids, types : Ragged
        Tokens of each input, and which of its texts each belongs to.
    labels : mapping of Head to Ragged or ndarray
        For each head a class (n,), a class for each token (Ragged), or the first and last token of a span (n, 2).
    pad_id : int
        Stands after the end of short rows.
    """

    objective = Tasks()

    def __init__(self, ids: Ragged, types: Ragged, labels: Mapping[Head, Ragged | np.ndarray], pad_id: int = 0) -> None:
        super().__init__(ids.lengths)
        self.ids, self.types, self.labels, self.pad_id = ids, types, labels, pad_id

    @classmethod
    def of(
        cls,
        texts: Sequence[LabelledText],
        tokenizer: Tokenizer,
        heads: Sequence[Head],
        context: int,
        *,
        cut: bool = False,
    ) -> LabelledTexts:
        """Encode labelled texts.

        Parameters
        ----------
        texts : sequence of LabelledText
            At least one.
        tokenizer : Tokenizer
            Of an encoder.
        heads : sequence of Head
            Of the model, as `heads_for` returns them. One that the texts are not labelled for is left out.
        context : int
            Positions of the model.
        cut : bool
            Whether a longer input loses tokens at its end. False: it is an error.

        Returns
        -------
        LabelledTexts
            The examples.

        Raises
        ------
        DataError
            Code ``too_long``; ``labels_missing``: for none of the heads; ``unknown_label``: a label that no head has;
            ``bad_record``: a second text is missing.
        UsageError
            Code ``bad_option``: a head of another kind.
        UnsupportedError
            Code ``unsupported_config``: a head of another problem than ``single_label``.
        """
        encoded = _encoded(texts, tokenizer, context if cut else None)
        for text, row in zip(texts, encoded, strict=True):
            if len(row.ids) > context:
                raise _too_long(text, len(row.ids), context)
        for head in heads:
            if head.kind not in _LABELS:
                raise UsageError("bad_option", f"texts have labels for {listed(_LABELS)} heads, not {head.kind!r}")
            if head.problem != "single_label":
                raise UnsupportedError(
                    "unsupported_config",
                    f"head {head.name!r} is for the problem {head.problem!r}, which minislm runs and does not train: "
                    "it trains heads that choose one label",
                )
        asked = [head for head in heads if getattr(texts[0], _FIELDS[head.kind]) is not None]
        if not asked:
            raise texts[0].record.error(
                "labels_missing",
                f"the model has heads for {[_FIELDS[head.kind] for head in heads]}, and the records were read for "
                "something else; name the task of these heads",
            )
        labels = {head: _LABELS[head.kind](texts, encoded, head) for head in asked}
        ids, types = Ragged.of([row.ids for row in encoded]), Ragged.of([row.types for row in encoded])
        return cls(ids, types, labels, tokenizer.pad_id or 0)

    def take(self, rows: np.ndarray) -> Batch:
        """Put some texts together with their labels."""
        labels = {
            head.name: column.padded(rows, NOT_JUDGED) if isinstance(column, Ragged) else column[rows]
            for head, column in self.labels.items()
        }
        return Batch(
            self.ids.padded(rows, self.pad_id),
            lengths_B=self.ids.lengths[rows],
            types_BT=self.types.padded(rows, 0),
            labels=labels,
        )

    def check(self, model: Any) -> None:
        """Refuse a model without these heads, or with too few positions or tokens."""
        check_heads(self.labels, model)
        check_length(self.ids.lengths, model)
        check_ids(np.append(self.ids.values, self.pad_id), model)

    def arrays(self) -> Arrays:
        """Return tokens, types and labels."""
        found = {"ids": self.ids.values, "lengths": self.ids.lengths, "types": self.types.values}
        for head, column in self.labels.items():
            found[f"{head.name} {head.labels}"] = column.values if isinstance(column, Ragged) else column
        return found


def heads_for(texts: Sequence[LabelledText]) -> tuple[Head, ...]:
    """Say which heads an encoder needs for labelled texts.

    Parameters
    ----------
    texts : sequence of LabelledText
        All that it is to learn from.

    Returns
    -------
    tuple of Head
        Labels in alphabetical order.

    Raises
    ------
    DataError
        Code ``one_class``: there is nothing to choose from; ``empty_text``: no texts.
    """
    if not texts:
        raise DataError("empty_text", "there are no labelled texts to learn from; give a file that holds some")
    first = texts[0]
    heads = []
    if first.label is not None:
        classes = sorted({str(text.label) for text in texts})
        if len(classes) == 1:
            raise _one_class(texts, f"all texts have the label {classes[0]!r}")
        heads.append(Head(LABEL, "sequence", tuple(classes)))
    if first.spans is not None:
        labels = {span.label for text in texts for span in text.spans or ()}
        if not labels:
            raise _one_class(texts, "no text has a span: every tag is O")
        heads.append(Head(TAGS, "token", bio_labels(labels)))
    if first.answers is not None:
        if not any(text.answers for text in texts):
            raise _one_class(texts, "no question has an answer")
        heads.append(Head(ANSWER, "span"))
    return tuple(heads)


def check_heads(heads: Any, model: Any) -> None:
    """Refuse a model that lacks one of some heads.

    Parameters
    ----------
    heads : iterable of Head
        What is needed.
    model : Model
        To be trained.

    Raises
    ------
    ConfigError
        Code ``config_invalid``.
    """
    own = getattr(model.config, "heads", ())
    for head in heads:
        if head not in own:
            raise ConfigError(
                "config_invalid",
                f"these examples are for a {head.kind} head {head.name!r} with the labels {list(head.labels)}, and the "
                f"model has {[h.name for h in own] or 'no heads'}. Give it that one by Encoder.with_heads",
            )


def _encoded(texts: Sequence[LabelledText], tokenizer: Tokenizer, max_length: int | None) -> list[Encoded]:
    pairs = [text.pair for text in texts]
    if all(pair is None for pair in pairs):
        return tokenizer.encode_pairs([text.text for text in texts], max_length=max_length)
    for text in texts:
        if text.pair is None:
            raise text.record.error("bad_record", "the second text is missing, which other records have")
    return tokenizer.encode_pairs([text.text for text in texts], [str(pair) for pair in pairs], max_length=max_length)


def _too_long(text: LabelledText, n_tokens: int, context: int) -> DataError:
    return text.record.error(
        "too_long",
        f"{n_tokens} tokens, special ones among them, and the model has {context} positions. Shorten the text, let it "
        "be cut (--cut), or give the model a longer context (--context)",
    )


def _one_class(texts: Sequence[LabelledText], what: str) -> DataError:
    return texts[0].record.error(
        "one_class",
        f"{what}, from here to {texts[-1].record.path}, line {texts[-1].record.line}. "
        "There is nothing to tell apart; give records of at least two kinds",
    )


def _classes(texts: Sequence[LabelledText], encoded: Sequence[Encoded], head: Head) -> np.ndarray:
    numbers = {label: i for i, label in enumerate(head.labels)}
    for text in texts:
        if text.label not in numbers:
            raise text.record.error(
                "unknown_label",
                f"the label {text.label!r} does not occur in training, where there are {', '.join(map(str, numbers))}",
            )
    return np.array([numbers[str(text.label)] for text in texts], np.int64)


def _tags(texts: Sequence[LabelledText], encoded: Sequence[Encoded], head: Head) -> Ragged:
    numbers = {tag: i for i, tag in enumerate(head.labels)}
    rows = []
    for text, (_, types, offsets) in zip(texts, encoded, strict=True):
        spans = text.spans or ()
        for span in spans:
            if f"B-{span.label}" not in numbers:
                raise text.record.error("unknown_label", f"spans of {span.label!r} do not occur in training")
        of_text = [place if of == 0 else (0, 0) for place, of in zip(offsets, types, strict=True)]
        rows.append([NOT_JUDGED if tag is None else numbers[tag] for tag in tags_of(spans, of_text)])
    return Ragged.of(rows)


def _ends(texts: Sequence[LabelledText], encoded: Sequence[Encoded], head: Head) -> np.ndarray:
    """Return the first and last token of each answer; the first position stands for no answer, as in BERT."""
    ends = np.zeros((len(texts), 2), np.int64)
    for i, (text, (_, types, offsets)) in enumerate(zip(texts, encoded, strict=True)):
        for answer in (text.answers or ())[:1]:
            inside = [
                t
                for t, ((start, end), of) in enumerate(zip(offsets, types, strict=True))
                if of == 1 and start < min(end, answer.end) and end > answer.start
            ]
            if not inside:
                raise text.record.error("too_long", "the answer lies in the part of the context that would be cut off")
            ends[i] = inside[0], inside[-1]
    return ends


_Labeller = Callable[[Sequence[LabelledText], Sequence[Encoded], Head], Ragged | np.ndarray]
_LABELS: dict[str, _Labeller] = {"sequence": _classes, "token": _tags, "span": _ends}
_FIELDS = {"sequence": "label", "token": "spans", "span": "answers"}  # of a LabelledText
