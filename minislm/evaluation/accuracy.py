"""How often a prediction is right: of a class, or of a whole frame, a class together with every span."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from minislm.evaluation.spans import require_aligned


def accuracy(true: Sequence[object], predicted: Sequence[object]) -> float:
    """Return the part of the predictions that equal the truth.

    Parameters
    ----------
    true, predicted : sequence
        Of the same length: labels, texts, or frames of `frames`.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    DataError
        Code ``labels_misaligned`` or ``empty_text``.

    Examples
    --------
    >>> accuracy(["play", "rate"], ["play", "play"])
    0.5
    """
    require_aligned(true, predicted)
    return sum(a == b for a, b in zip(true, predicted, strict=True)) / len(true)


def frames(labels: Sequence[str], spans: Sequence[Iterable[Hashable]]) -> list[tuple[str, frozenset[Hashable]]]:
    """Join the class and the spans of each text, which `accuracy` then judges as a whole.

    Parameters
    ----------
    labels : sequence of str
        The class of each text.
    spans : sequence of iterables of spans
        Its spans, in any order.

    Returns
    -------
    list of tuple of (str, frozenset)
        Equal when the class and all spans are.

    Raises
    ------
    DataError
        Code ``labels_misaligned`` or ``empty_text``.

    References
    ----------
    .. [1] Coucke et al. (2018), "Snips voice platform", arXiv 1805.10190.

    Examples
    --------
    >>> accuracy(frames(["play"], [[(0, 3, "song")]]), frames(["play"], [[]]))
    0.0
    """
    require_aligned(labels, spans)
    return [(label, frozenset(own)) for label, own in zip(labels, spans, strict=True)]
