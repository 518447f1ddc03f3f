"""MaskedWindows: text with hidden tokens for an encoder to guess.

References
----------
.. [1] Devlin, Chang, Lee, Toutanova (2018), "BERT", arXiv 1810.04805, section 3.1 and appendix A.1.
.. [2] Liu et al. (2019), "RoBERTa", arXiv 1907.11692, section 4.1: other masks each time a text comes back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minislm.config import Head
from minislm.errors import ConfigError, UnsupportedError, UsageError
from minislm.text.tokenizer import Tokenizer
from minislm.training.data import Batch, Examples, TokenWindows, check_ids, random_numbers
from minislm.training.objective import NOT_JUDGED, Tasks
from minislm.training.tasks.labelled import check_heads
from minislm.weights.base import Arrays

MASKED, NEXT = Head("masked", "masked"), Head("next", "sequence", ("next", "other"))
MASKS, EVALUATION_MASKS = 1 << 56, 2 << 56  # streams of random numbers, apart from those of the order


class MaskedWindows(Examples):
    """A stream of tokens, cut into windows in which some tokens are hidden.

    Of the chosen tokens 8 in 10 are replaced by [MASK], 1 by any ordinary token, and 1 stays [1]_; the choice is
    another one each time [2]_.

    Parameters
    ----------
    ids : ndarray of int, (n_tokens,)
        The text, as `Tokenizer.encode_documents` returns it.
    tokenizer : Tokenizer
        Of an encoder.
    context : int
        Tokens of an input, special ones among them.
    next_sentence : bool
        Whether each window is cut into two texts, the second of which is another one's in half of the cases, as the
        head ``next`` is to tell.
    rate : float
        Share of the tokens that are to be guessed.

    Raises
    ------
    UsageError
        Code ``bad_option``: a `rate` outside of (0, 1), or no room in `context`.
    UnsupportedError
        Code ``no_special_tokens``.
    DataError
        As of `TokenWindows`.
    """

    objective = Tasks()

    def __init__(
        self, ids: np.ndarray, tokenizer: Tokenizer, context: int, *, next_sentence: bool = False, rate: float = 0.15
    ) -> None:
        if tokenizer.cls_id is None or tokenizer.sep_id is None or tokenizer.mask_id is None:
            raise UnsupportedError("no_special_tokens", "masked words need an encoder's tokenizer, such as wordpiece")
        if not 0.0 < rate < 1.0 or context < 5:
            raise UsageError(
                "bad_option", f"rate must lie in (0, 1) and context be at least 5, not {rate} and {context}"
            )
        self.cls_id, self.sep_id, self.mask_id = tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id
        self.context, self.next_sentence, self.rate = context, next_sentence, rate
        self.middle = context // 2 if next_sentence else context - 1  # where the first text ends
        self.places = np.setdiff1d(np.arange(context), [0, self.middle, context - 1])  # of the text's tokens
        self.windows = TokenWindows(ids, len(self.places))
        self.ordinary = np.setdiff1d(tokenizer.learned_ids, list(tokenizer.special_ids.values()))

    @property
    def n_examples(self) -> int:
        """Windows of an epoch."""
        return self.windows.n_examples

    @property
    def n_tokens(self) -> int:
        """Number of tokens in the stream."""
        return self.windows.n_tokens

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads that guess."""
        return (MASKED, NEXT) if self.next_sentence else (MASKED,)

    def batch(self, index: int, size: int, *, seed: int) -> Batch:
        """Return windows with masks that are a function of the batch's number."""
        return self._masked(self.windows.batch(index, size, seed=seed).ids_BT, seed, MASKS + index)

    def evaluation(self, size: int, batches: int = 0) -> Iterator[Batch]:
        """Yield windows that lie side by side, always under the same masks."""
        for i, batch in enumerate(self.windows.evaluation(size, batches)):
            yield self._masked(batch.ids_BT, 0, EVALUATION_MASKS + i)

    def check(self, model: Any) -> None:
        """Refuse a model without these heads, or with too few positions or tokens."""
        check_heads(self.heads, model)
        if self.context > model.config.context:
            raise ConfigError(
                "config_invalid",
                f"inputs of {self.context} tokens do not fit the model's context of {model.config.context}",
            )
        check_ids(np.append(self.windows.ids, [self.cls_id, self.sep_id, self.mask_id, self.ordinary[-1]]), model)

    def arrays(self) -> Arrays:
        """Return the stream, under the options."""
        return {f"{self.context} {self.next_sentence} {self.rate} {self.mask_id}": self.windows.ids}

    def tokens_per_batch(self, size: int) -> float:
        """Tell how many tokens every batch has."""
        return size * self.context

    def _masked(self, windows: np.ndarray, seed: int, stream: int) -> Batch:
        """Put windows between special tokens, and hide some of their tokens."""
        n_rows = len(windows)
        raw = random_numbers(seed, stream, n_rows * (2 + 3 * self.context))
        ids_BT = np.full((n_rows, self.context), self.sep_id)
        ids_BT[:, 0] = self.cls_id
        ids_BT[:, self.places] = windows
        labels = {}
        if self.next_sentence:
            labels[NEXT.name] = self._exchange(ids_BT, raw[: 2 * n_rows].reshape(2, n_rows))
        choice_BT, change_BT, number_BT = raw[2 * n_rows :].reshape(3, n_rows, self.context)
        chosen_BT = (_share(choice_BT) < self.rate) & np.isin(ids_BT, self.ordinary)
        labels[MASKED.name] = np.where(chosen_BT, ids_BT, NOT_JUDGED)
        any_BT = self.ordinary[number_BT % np.uint64(len(self.ordinary))]
        change_BT = np.where(_share(change_BT) < 0.8, self.mask_id, np.where(_share(change_BT) < 0.9, any_BT, ids_BT))
        ids_BT = np.where(chosen_BT, change_BT, ids_BT)
        types_BT = np.broadcast_to(np.arange(self.context) > self.middle, ids_BT.shape).astype(np.int64)
        return Batch(ids_BT, types_BT=types_BT, labels=labels)

    def _exchange(self, ids_BT: np.ndarray, raw: np.ndarray) -> np.ndarray:
        """Put other text in place of the second one in about half of the rows; return which, as labels of `NEXT`."""
        second = self.places[self.places > self.middle]
        other_B = _share(raw[0]) < 0.5
        starts_B = (raw[1] % np.uint64(self.n_tokens - len(second))).astype(np.int64)
        rows = np.flatnonzero(other_B)
        ids_BT[rows[:, None], second] = self.windows.ids[starts_B[rows, None] + np.arange(len(second))]
        return other_B.astype(np.int64)


def _share(raw: np.ndarray) -> np.ndarray:
    """Turn random 64-bit numbers into numbers in [0, 1)."""
    share: np.ndarray = (raw >> np.uint64(11)) * 2.0**-53
    return share
