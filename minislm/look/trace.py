"""Trace: what every layer saved during one forward pass, readable by path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minislm.errors import unknown
from minislm.layers.base import PLAIN, Tape
from minislm.ops.attention import attention_probabilities

if TYPE_CHECKING:
    from minislm.language_model import LanguageModel


@dataclass(frozen=True)
class Trace:
    """One forward pass, opened up.

    Parameters
    ----------
    ids : ndarray of int64, (T,)
        The tokens.
    tokens : tuple of str
        Their texts.
    logits : ndarray of float32, (T, V)
        What the model predicted.
    saved : dict of str to object
        By layer path: the input of a Linear (N, I), what a norm, an activation or attention saved.
    """

    ids: np.ndarray
    tokens: tuple[str, ...]
    logits: np.ndarray
    saved: dict[str, Any]

    def attention(self, layer: int) -> np.ndarray:
        """Compute the attention probabilities of a block.

        Parameters
        ----------
        layer : int
            Number of the block.

        Returns
        -------
        ndarray of float32, (H, T, S)
            How much each query position of each head takes from each key position; rows sum to 1.

        Raises
        ------
        UnsupportedError
            Code ``unknown_layer``.
        """
        path = f"blocks.{layer}.attention"
        if path not in self.saved:
            raise unknown("layer", path, [known for known in self.saved if known.endswith(".attention")])
        p_BHTS = attention_probabilities(self.saved[path])
        probabilities: np.ndarray = p_BHTS[0]
        return probabilities


def trace(lm: LanguageModel, text: str) -> Trace:
    """Run a text through a model and keep what every layer saved.

    Parameters
    ----------
    lm : LanguageModel
        Model and tokenizer.
    text : str
        At least one token, at most the model's context.

    Returns
    -------
    Trace
        The pass, opened up.
    """
    ids = np.array(lm.tokenizer.encode(text), np.int64)
    tape = Tape()
    logits = lm.model.forward(ids[None], PLAIN, tape)
    return Trace(ids, tuple(lm.tokenizer.decode([i]) for i in ids.tolist()), logits[0], dict(tape))
