"""Trace: what every layer saved during one forward pass, readable by path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minislm.errors import UnsupportedError, unknown
from minislm.layers.base import PLAIN, Tape
from minislm.models.encoder import Encoder
from minislm.models.transformer import Transformer
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
        Their texts; of special ones their names.
    logits : ndarray of float32, (T, V), or dict of str to ndarray
        What the model predicted; of an encoder, what each of its heads says, by its name.
    saved : dict of str to object
        By layer path: the input of a Linear (N, I), what a norm, an activation or attention saved.
    """

    ids: np.ndarray
    tokens: tuple[str, ...]
    logits: np.ndarray | dict[str, np.ndarray]
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
        A decoder or an encoder, and its tokenizer.
    text : str
        At least one token, at most the model's context; special tokens of an encoder are put around it.

    Returns
    -------
    Trace
        The pass, opened up.

    Raises
    ------
    UnsupportedError
        Code ``cannot_trace``: the model is an encoder-decoder, whose pass takes two texts.
    DataError
        Code ``unencodable_text``.
    GenerationError
        Code ``context_length_exceeded``.
    """
    if isinstance(lm.model, Transformer):
        raise UnsupportedError(
            "cannot_trace", "a trace is of one text, and an encoder-decoder reads two; trace another"
        )
    is_encoder, tokenizer = isinstance(lm.model, Encoder), lm.tokenizer
    ids = np.array(tokenizer.encode_pairs([text])[0].ids if is_encoder else tokenizer.encode(text), np.int64)
    tape = Tape()
    said = lm.model.forward(ids[None], PLAIN, tape)
    logits = {name: y[0] for name, y in said.items()} if isinstance(said, dict) else said[0]
    texts = tuple(tokenizer.decode([i]) or tokenizer.tokens[i] for i in ids.tolist())
    return Trace(ids, texts, logits, dict(tape))
