"""How good translations are: BLEU by sacrebleu, whose signature says how it was counted. Needs the `eval` extra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minislm.errors import UnsupportedError
from minislm.evaluation.spans import require_aligned


@dataclass(frozen=True)
class Bleu:
    """A corpus's BLEU.

    Parameters
    ----------
    score : float
        From 0 to 100.
    signature : str
        What was counted, and by which version, in sacrebleu's words.
    """

    score: float
    signature: str


def bleu(references: Sequence[str], translations: Sequence[str], **options: Any) -> Bleu:
    """Compare translations with one reference each, as detokenized text.

    Parameters
    ----------
    references, translations : sequence of str
        The right texts, and those to be judged.
    **options : Any
        Of ``sacrebleu.metrics.BLEU``, such as ``lowercase=True``; the defaults are what papers report.

    Returns
    -------
    Bleu
        The score and its signature.

    Raises
    ------
    UnsupportedError
        Code ``eval_extra_missing``: sacrebleu is not installed.
    DataError
        Code ``labels_misaligned`` or ``empty_text``.

    References
    ----------
    .. [1] Post (2018), "A call for clarity in reporting BLEU scores", arXiv 1804.08771.
    """
    require_aligned(references, translations)
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise UnsupportedError(
            "eval_extra_missing", "BLEU needs sacrebleu: pip install -e '.[eval]' where minislm stands"
        ) from error
    metric = BLEU(**options)
    score = metric.corpus_score(list(translations), [list(references)]).score
    return Bleu(float(score), str(metric.get_signature()))
