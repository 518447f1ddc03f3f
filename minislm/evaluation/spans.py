"""How well spans are found: precision, recall and F1 of whole spans, as seqeval counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass

from minislm.errors import DataError


@dataclass(frozen=True)
class SpanScores:
    """Counts over all texts, and what follows from them.

    Parameters
    ----------
    n_true : int
        Spans that there are.
    n_predicted : int
        Spans that were predicted.
    n_correct : int
        Those of them that have the right start, end and label.
    """

    n_true: int
    n_predicted: int
    n_correct: int

    @property
    def precision(self) -> float:
        """Part of the predicted spans that are correct; 0 where none was predicted."""
        return self.n_correct / self.n_predicted if self.n_predicted else 0.0

    @property
    def recall(self) -> float:
        """Part of the true spans that were found; 0 where there is none."""
        return self.n_correct / self.n_true if self.n_true else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 where both are."""
        total = self.n_true + self.n_predicted
        return 2 * self.n_correct / total if total else 0.0


def span_scores(true: Sequence[Collection[Hashable]], predicted: Sequence[Collection[Hashable]]) -> SpanScores:
    """Compare predicted spans with true ones; all texts are counted together (the micro average).

    Parameters
    ----------
    true, predicted : sequence of collections of spans
        Of each text, such as `text.spans.Span`: equal when start, end and label are.

    Returns
    -------
    SpanScores
        Precision, recall and F1.

    Raises
    ------
    DataError
        Code ``labels_misaligned``: not as many texts in both.

    References
    ----------
    .. [1] Tjong Kim Sang, De Meulder (2003), "Introduction to the CoNLL-2003 shared task", section 5: a span is right
       or wrong as a whole.

    Examples
    --------
    >>> scores = span_scores([[(0, 3, "city"), (5, 8, "time")]], [[(0, 3, "city"), (5, 7, "time")]])
    >>> scores.precision, scores.recall, scores.f1
    (0.5, 0.5, 0.5)
    """
    require_aligned(true, predicted)
    n_correct = sum((Counter(a) & Counter(b)).total() for a, b in zip(true, predicted, strict=True))
    return SpanScores(sum(map(len, true)), sum(map(len, predicted)), n_correct)


def require_aligned(true: Sequence[object], predicted: Sequence[object]) -> None:
    """Refuse to compare what does not belong together.

    Parameters
    ----------
    true, predicted : sequence
        To be compared one by one.

    Raises
    ------
    DataError
        Code ``labels_misaligned``: one is longer. Code ``empty_text``: there is nothing to compare.
    """
    if len(true) != len(predicted):
        raise DataError(
            "labels_misaligned", f"{len(true)} labelled texts and {len(predicted)} predictions; give one for each"
        )
    if not true:
        raise DataError("empty_text", "there is nothing to compare; give at least one labelled text")
