"""Beam search: several continuations side by side, of which the likeliest for its length is the result."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minislm.inference.generation import Generation, Request, Timings
from minislm.inference.sampling import check_finite, penalize_repetition
from minislm.inference.settings import GenerationSettings
from minislm.inference.writing import Writer
from minislm.ops.softmax import log_softmax
from minislm.text.tokenizer import Tokenizer


class Beam(NamedTuple):
    """One continuation.

    Parameters
    ----------
    ids : tuple of int
        Its tokens.
    score : float
        Log-probability in nats; of a finished one, divided by its length to the power of the length penalty.
    stopped : str
        Why it is finished; empty while it is in progress.
    """

    ids: tuple[int, ...]
    score: float
    stopped: str = ""


class BeamSearch(Writer):
    """Keeps the likeliest continuations, and ends when none in progress can be expected to beat the finished ones.

    Each step lengthens every beam by every token, and looks at the 2 n likeliest results, n the number of beams (more
    where several tokens end a text). Those that end a text are finished, if they are among the first n; the first n of
    the others go on. A finished beam scores log-probability / length ** penalty, its end counted, and the n best are
    kept. The search ends when there are n and the likeliest beam in progress would score no more than the last of them:
    at its present length, or with ``early_stopping="never"`` at the length that is best for it. With
    ``early_stopping=True`` it ends when there are n, and in any case at the limit of length, where all that is in
    progress finishes. This is what transformers does.

    Parameters
    ----------
    request, tokenizer, settings : Request, Tokenizer, GenerationSettings
        As of every `Writer`.

    References
    ----------
    .. [1] Wu et al. (2016), "Google's neural machine translation system", arXiv 1609.08144, section 7: scores that are
       normalized by length.
    """

    def __init__(self, request: Request, tokenizer: Tokenizer, settings: GenerationSettings) -> None:
        super().__init__(request, tokenizer, settings)
        self.beams = [Beam((), 0.0)]
        self.finished: list[Beam] = []

    def take(self, logits_BV: np.ndarray) -> tuple[str, list[int]]:
        """Lengthen every beam by a token; the text is certain at the end."""
        n, length = self.settings.n_beams, len(self.beams[0].ids) + 1
        penalty = length**self.settings.length_penalty
        running, continued = [], []
        for rank, (row, token, score) in enumerate(self._likeliest(logits_BV, n * max(2, 1 + len(self.end_ids)))):
            ids = (*self.beams[row].ids, token)
            stopped = "eos" if self.ends(token) else self.limit(length)
            if not stopped:
                running.append(Beam(ids, score))
                continued.append(row)
            elif rank < n:
                self.finished.append(Beam(ids, score / penalty, stopped))
        self.finished = sorted(self.finished, key=lambda beam: -beam.score)[:n]
        self.beams, continued = running[:n], continued[:n]
        self.tokens = [beam.ids[-1] for beam in self.beams]
        if not running or (len(self.finished) == n and self._decided(running[0], penalty)):
            self.stopped = self.finished[0].stopped
            return self._text(), []
        return "", continued

    def result(self, timings: Timings) -> Generation:
        """Return the best finished beam."""
        best = self.finished[0] if self.finished else Beam((), 0.0, self.stopped)
        prompt_tokens = self.request.prompt_tokens
        return Generation(self._text(), list(best.ids), best.stopped, prompt_tokens, timings, best.score)

    def _decided(self, best: Beam, penalty: float) -> bool:
        """Tell whether the finished beams will stay, given the best in progress."""
        if self.settings.early_stopping is True:
            return True
        if self.settings.early_stopping == "never" and self.settings.length_penalty > 0:
            penalty = min(self.settings.max_new_tokens, self.request.room) ** self.settings.length_penalty
        return best.score / penalty <= self.finished[-1].score

    def _likeliest(self, logits_BV: np.ndarray, n: int) -> list[tuple[int, int, float]]:
        """Return the likeliest beams lengthened by a token, best first: (row, token, log-probability)."""
        check_finite(logits_BV)
        log_p_BV = log_softmax(logits_BV)
        if self.settings.repetition_penalty != 1.0:
            seen = [[*self.request.ids, *beam.ids] for beam in self.beams]
            penalty = self.settings.repetition_penalty
            log_p_BV = np.stack([penalize_repetition(*row, penalty) for row in zip(log_p_BV, seen, strict=True)])
        rules = [self.allowed(beam.ids, logits_BV.shape[1]) for beam in self.beams]
        log_p_BV = np.stack([self._ruled(*row) for row in zip(log_p_BV, rules, strict=True)])
        scores = (log_p_BV + np.array([[beam.score] for beam in self.beams])).reshape(-1)
        best = np.argpartition(-scores, min(n, scores.size) - 1)[:n]
        best = best[np.lexsort((best, -scores[best]))]
        best = best[scores[best] > -np.inf]
        rows, tokens = np.divmod(best, logits_BV.shape[1])
        return list(zip(rows.tolist(), tokens.tolist(), scores[best].tolist(), strict=True))

    def _ruled(self, log_p_V: np.ndarray, allowed_V: np.ndarray | None) -> np.ndarray:
        """Leave nothing to tokens that must not come; one that must is certain."""
        if allowed_V is not None:
            log_p_V = np.where(allowed_V, log_p_V, -np.inf)
        certain = allowed_V is not None and np.count_nonzero(allowed_V) == 1
        return log_softmax(log_p_V[None])[0] if certain or self.settings.renormalize else log_p_V

    def _text(self) -> str:
        return self.tokenizer.decode(self.finished[0].ids) if self.finished else ""
