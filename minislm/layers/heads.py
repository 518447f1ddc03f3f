"""Heads: what an encoder says about a text, from the last hidden states or from the pooled vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.dispatch import ops
from minislm.layers.base import Context, Grads, Layer, Tape
from minislm.layers.dropout import Dropout
from minislm.layers.embedding import Embedding
from minislm.layers.linear import Linear
from minislm.layers.norm import Norm

IMPOSSIBLE = -1e9  # the logit of a place where no answer can be: finite, and a probability of 0


@dataclass(frozen=True)
class MaskedHead(Layer):
    """The token that stood at each position: a transformed stream meets the embedding table (Devlin et al., 2018).

    Parameters
    ----------
    path : str
        Its name in the model.
    transform : Linear
        D to D.
    activation : str
        An op of `ops.activation`, after it.
    norm : Norm
        After the activation.
    embedding : Embedding
        The model's own table.
    bias : ndarray of float, (V,)
        Added to the logits.
    rest : Linear, optional
        To V from as much of the stream as is wider than the table (Sun et al., 2020, arXiv 2004.02984); None: nothing
        is.
    """

    transform: Linear
    activation: str
    norm: Norm
    embedding: Embedding
    bias: np.ndarray
    rest: Linear | None = None

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Map the stream (B, T, D) to logits (B, T, V)."""
        h, saved = getattr(ops, self.activation)(self.transform.forward(x, context, tape))
        if tape is not None:
            tape.push(f"{self.path}.{self.activation}", saved)
        h = self.norm.forward(h, context, tape)
        logits = self.embedding.logits(h[..., : self._width], tape)
        if self.rest is not None:
            logits += self.rest.forward(h[..., self._width :], context, tape)
        logits += self.bias
        return logits

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Return the gradient of the stream, (B, T, D)."""
        grads.add(f"{self.path}.bias", dy.sum(axis=(0, 1)))
        drest = None if self.rest is None else self.rest.backward(dy, tape, grads)
        dh = self.embedding.logits_backward(dy, tape, grads)
        if drest is not None:
            dh = np.concatenate([dh, drest], axis=-1)
        dh = self.norm.backward(dh, tape, grads)
        dh = getattr(ops, f"{self.activation}_backward")(dh, tape.take(f"{self.path}.{self.activation}"))
        return self.transform.backward(dh, tape, grads)

    def lower(self, x: int, program: Any) -> int:
        """Append transform, activation, norm, table and bias."""
        h = self.transform.lower(x, program)
        h = program.step(self.activation, (h,), width=self.transform.weight.shape[0])
        h = self.norm.lower(h, program)
        table, width = self.embedding.weight, self._width
        if self.rest is None:
            logits = table.lower(h, program)
        else:
            first = program.step("columns", (h,), width=width, start=0)
            others = program.step("columns", (h,), width=self.norm.weight.size - width, start=width)
            both = table.lower(first, program), self.rest.lower(others, program)
            logits = program.step("add", both, width=self.bias.size)
        lowered: int = program.step("add_bias", (logits,), constants=(self.bias,), width=self.bias.size)
        return lowered

    @property
    def _width(self) -> int:
        """How much of the stream meets the table."""
        return self.embedding.weight.shape[1]


@dataclass(frozen=True)
class ClassHead(Layer):
    """One class of several: of each token, or of a text when it is given the pooled vector.

    Parameters
    ----------
    path : str
        Its name in the model.
    dropout : Dropout
        Applied to its input.
    output : Linear
        D to the number of classes, C.
    """

    dropout: Dropout
    output: Linear

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Map (..., D) to logits (..., C)."""
        return self.output.forward(self.dropout.forward(x, context, tape), context, tape)

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Return the gradient of the input, (..., D)."""
        return self.dropout.backward(self.output.backward(dy, tape, grads), tape, grads)

    def lower(self, x: int, program: Any) -> int:
        """Append the product."""
        return self.output.lower(x, program)


@dataclass(frozen=True)
class SpanHead(Layer):
    """Where an answer starts and where it ends.

    Parameters
    ----------
    path : str
        Its name in the model.
    output : Linear
        D to 2: a score as start and one as end.
    """

    output: Linear

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Map the stream (B, T, D) to logits (B, 2, T) over the positions; padding gets `IMPOSSIBLE`."""
        scores = np.ascontiguousarray(self.output.forward(x, context, tape).swapaxes(1, 2))
        padding_BT = _padding(context, x.shape[1])
        if padding_BT is not None:
            scores = np.where(padding_BT[:, None], scores.dtype.type(IMPOSSIBLE), scores)
        if tape is not None:
            tape.push(f"{self.path}.padding", padding_BT)
        return scores

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Return the gradient of the stream, (B, T, D)."""
        padding_BT = tape.take(f"{self.path}.padding")
        if padding_BT is not None:  # undo where(padding, ...)
            dy = np.where(padding_BT[:, None], dy.dtype.type(0), dy)
        return self.output.backward(np.ascontiguousarray(dy.swapaxes(1, 2)), tape, grads)

    def lower(self, x: int, program: Any) -> int:
        """Append the product: a row of two scores for each token, for a Program knows no padding."""
        return self.output.lower(x, program)


def _padding(context: Context, n_positions: int) -> np.ndarray | None:
    mask_BT = context.key_mask(n_positions)
    return None if mask_BT is None else ~mask_BT
