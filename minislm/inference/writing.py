"""Writers: each writes what follows one request, given the logits of the passes that the engine runs for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from minislm.errors import GenerationError
from minislm.inference.generation import Generation, Request, Timings
from minislm.inference.sampling import choose, repeating
from minislm.inference.settings import GenerationSettings
from minislm.inference.stopping import StopFilter
from minislm.text.tokenizer import Tokenizer


class Writer(ABC):
    """One request on its way.

    Parameters
    ----------
    request : Request
        What it begins with.
    tokenizer : Tokenizer
        The model's.
    settings : GenerationSettings
        How to choose and when to stop.

    Attributes
    ----------
    slots : list of int
        Cache slots, one for each sequence that it may have in progress; the engine claims and releases them.
    tokens : list of int
        The token that each sequence in progress takes next, the first in the first slot.
    stopped : str
        Why it ended; empty while it goes on.
    """

    def __init__(self, request: Request, tokenizer: Tokenizer, settings: GenerationSettings) -> None:
        self.request = request
        self.tokenizer = tokenizer
        self.settings = settings
        self.slots: list[int] = []
        self.tokens: list[int] = []
        self.stopped = ""
        own = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
        self.end_ids = frozenset(settings.eos_ids or own)

    @abstractmethod
    def take(self, logits_BV: np.ndarray) -> tuple[str, list[int]]:
        """Choose what comes next.

        Parameters
        ----------
        logits_BV : ndarray of float32, (B, V)
            Of each sequence in progress; the first time, of the one request.

        Returns
        -------
        text : str
            The text that has become certain.
        continued : list of int
            For each sequence in progress from now on, the row of `logits_BV` that it continues.

        Raises
        ------
        GenerationError
            Codes ``logits_not_finite`` and ``no_token_allowed``.
        """

    @abstractmethod
    def result(self, timings: Timings) -> Generation:
        """Return what became of the request, once it has stopped.

        Parameters
        ----------
        timings : Timings
            Of the whole call.

        Returns
        -------
        Generation
            The result.
        """

    def limit(self, n_new: int) -> str:
        """Tell whether so many new tokens are all that there may be.

        Parameters
        ----------
        n_new : int
            New tokens.

        Returns
        -------
        str
            ``"length"``, ``"context"``, or nothing while there may be more.
        """
        if n_new >= self.settings.max_new_tokens:
            return "length"
        return "context" if n_new >= self.request.room else ""

    def ends(self, token: int) -> bool:
        """Tell whether a token ends a text.

        Parameters
        ----------
        token : int
            The token.

        Returns
        -------
        bool
            Whether it is an end-of-text token, and these are not ignored.
        """
        return token in self.end_ids and not self.settings.ignore_eos

    def allowed(self, ids: Sequence[int], n_tokens: int) -> np.ndarray | None:
        """Tell which tokens may come next.

        Parameters
        ----------
        ids : sequence of int
            The new ones so far.
        n_tokens : int
            Tokens to choose from, V.

        Returns
        -------
        ndarray of bool, (V,), or None
            False for what the settings forbid, or for all but what they force; None: all may come.

        Raises
        ------
        GenerationError
            Code ``no_token_allowed``: none may come.
        """
        settings, forced = self.settings, None
        if not ids:
            forced = settings.first_id
        if settings.last_id is not None and self.limit(len(ids) + 1):
            forced = settings.last_id
        forbidden = set(settings.banned_ids)
        if len(ids) < settings.min_new_tokens:
            forbidden |= self.end_ids
        if settings.no_repeat_ngram:
            forbidden |= repeating([*self.request.ids, *ids], settings.no_repeat_ngram)
        if forced is None and not forbidden:
            return None
        numbers = np.arange(n_tokens)
        allowed_V = numbers == forced if forced is not None else np.isin(numbers, list(forbidden), invert=True)
        if not allowed_V.any():
            what = (
                f"forbid all {n_tokens} tokens" if forced is None else f"force token {forced}, and there are {n_tokens}"
            )
            raise GenerationError("no_token_allowed", f"the settings {what}, after {len(ids)} new ones; change them")
        return allowed_V


class Sampler(Writer):
    """Draws one token after the other, or takes the most likely one.

    Parameters
    ----------
    request, tokenizer, settings : Request, Tokenizer, GenerationSettings
        As of every `Writer`.
    """

    def __init__(self, request: Request, tokenizer: Tokenizer, settings: GenerationSettings) -> None:
        super().__init__(request, tokenizer, settings)
        self.ids: list[int] = []
        self.pieces: list[str] = []
        self._seen = list(request.ids)  # and the new ones
        self._decoder = tokenizer.text_stream()
        self._filter = StopFilter(settings.stop)

    def take(self, logits_BV: np.ndarray) -> tuple[str, list[int]]:
        """Choose one token; its text may have to wait for the next ones."""
        allowed_V = self.allowed(self.ids, logits_BV.shape[1])
        token = choose(logits_BV[0], self.settings, self._seen, len(self.ids), allowed_V)
        self.ids.append(token)
        self._seen.append(token)
        self.tokens = [token]
        piece = ""
        if self.ends(token):
            self.stopped = "eos"
        else:
            piece = self._filter.push(self._decoder.push(token))
            self.stopped = "stop" if self._filter.found else self.limit(len(self.ids))
        if self.stopped and self.stopped != "stop":
            piece += self._filter.push(self._decoder.finish())
            piece += self._filter.finish()
        self.pieces.append(piece)
        return piece, [0]

    def result(self, timings: Timings) -> Generation:
        """Return the text and the tokens."""
        return Generation("".join(self.pieces), self.ids, self.stopped, self.request.prompt_tokens, timings)
