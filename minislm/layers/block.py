"""Blocks: attention and a feed-forward part, each with its norm, its dropout and the sum that passes it by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from minislm.layers.attention import Attention
from minislm.layers.base import Context, Grads, Layer, Tape
from minislm.layers.coupling import Coupling
from minislm.layers.cross_attention import CrossAttention
from minislm.layers.dropout import Dropout
from minislm.layers.mlp import MLP, GatedMLP
from minislm.layers.norm import Norm


class _Branch(NamedTuple):
    """What a part of a block adds to the stream: ``scale * dropout(after(body(before(x))))``.

    Parameters
    ----------
    before : Norm, optional
        Applied to the stream that the body reads; None: it reads that itself.
    body : Layer
        Attention or a feed-forward part.
    after : Norm, optional
        Applied to what the body gives.
    dropout : Dropout
        Applied after that.
    scale : float
        Factor of the sum.
    """

    before: Norm | None
    body: Attention | CrossAttention | MLP | GatedMLP
    after: Norm | None
    dropout: Dropout
    scale: float

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None) -> np.ndarray:
        """Return the stream with the branch added."""
        h = x if self.before is None else self.before.forward(x, context, tape)
        h = self.body.forward(h, context, tape)
        if self.after is not None:
            h = self.after.forward(h, context, tape)
        h = self.dropout.forward(h, context, tape)
        y: np.ndarray = x + h if self.scale == 1 else x + h * self.scale
        return y

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Read `forward` upwards: the sum passes its gradient to both terms."""
        dh = dy if self.scale == 1 else dy * self.scale
        dh = self.dropout.backward(dh, tape, grads)
        if self.after is not None:
            dh = self.after.backward(dh, tape, grads)
        dh = self.body.backward(dh, tape, grads)
        if self.before is not None:
            dh = self.before.backward(dh, tape, grads)
        dx: np.ndarray = dy + dh
        return dx

    def lower(self, x: int, program: Any) -> int:
        """Append the branch and the sum."""
        h = x if self.before is None else self.before.lower(x, program)
        h = self.body.lower(h, program)
        if self.after is not None:
            h = self.after.lower(h, program)
        h = program.scaled(h, self.scale)
        lowered: int = program.step("add", (x, h), width=program.writer(h).width)
        return lowered


@dataclass(frozen=True)
class PreNormBlock(Layer):
    """``x = x + attention(norm_1(x)); x = x + mlp(norm_2(x))`` (Radford et al., 2019).

    Norms may also stand after a part instead of before it (OLMo 2, 2024, arXiv 2501.00656, section 2.1), or on both
    sides (Gemma 2, 2024, arXiv 2408.00118, section 2).

    Parameters
    ----------
    path : str
        Its name in the model.
    norm_1, attention, dropout_1 : Norm, Attention, Dropout
        The part that mixes positions.
    norm_2, mlp, dropout_2 : Norm, MLP or GatedMLP, Dropout
        The part that works on each position by itself.
    after_1, after_2 : Norm, optional
        Applied to what each part gives; None: nothing is.
    scale : float
        Factor of what each part adds.
    """

    norm_1: Norm | None
    attention: Attention
    dropout_1: Dropout
    norm_2: Norm | None
    mlp: MLP | GatedMLP
    dropout_2: Dropout
    after_1: Norm | None = None
    after_2: Norm | None = None
    scale: float = 1.0

    @property
    def _branches(self) -> tuple[_Branch, _Branch]:
        """Both parts, in order."""
        return (
            _Branch(self.norm_1, self.attention, self.after_1, self.dropout_1, self.scale),
            _Branch(self.norm_2, self.mlp, self.after_2, self.dropout_2, self.scale),
        )

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Map the stream (B, T, D) to the stream (B, T, D)."""
        for branch in self._branches:
            x = branch.forward(x, context, tape)
        if tape is not None:
            tape.see(self.path, x)
        return x

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Read `forward` upwards."""
        dx = grads.joined(self.path, dy)
        for branch in reversed(self._branches):
            dx = branch.backward(dx, tape, grads)
        return dx

    def lower(self, x: int, program: Any) -> int:
        """Append both parts with their sums."""
        for branch in self._branches:
            x = branch.lower(x, program)
        return x


@dataclass(frozen=True)
class ParallelBlock(Layer):
    """``h = norm(x); x = x + attention(h) + mlp(h)`` (Wang and Komatsuzaki, 2021, GPT-J).

    Parameters
    ----------
    path : str
        Its name in the model.
    norm_1 : Norm
        What both parts read.
    attention, dropout_1 : Attention, Dropout
        The part that mixes positions.
    mlp, dropout_2 : MLP or GatedMLP, Dropout
        The part that works on each position by itself.
    """

    norm_1: Norm
    attention: Attention
    dropout_1: Dropout
    mlp: MLP | GatedMLP
    dropout_2: Dropout

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Map the stream (B, T, D) to the stream (B, T, D)."""
        h = self.norm_1.forward(x, context, tape)
        a = self.dropout_1.forward(self.attention.forward(h, context, tape), context, tape)
        m = self.dropout_2.forward(self.mlp.forward(h, context, tape), context, tape)
        y: np.ndarray = x + a + m
        if tape is not None:
            tape.see(self.path, y)
        return y

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Read `forward` upwards: the sum passes its gradient to all three terms."""
        dy = grads.joined(self.path, dy)
        dh = self.mlp.backward(self.dropout_2.backward(dy, tape, grads), tape, grads)
        dh = dh + self.attention.backward(self.dropout_1.backward(dy, tape, grads), tape, grads)
        dx: np.ndarray = dy + self.norm_1.backward(dh, tape, grads)
        return dx

    def lower(self, x: int, program: Any) -> int:
        """Append both parts and the sums."""
        width = self.norm_1.weight.size
        h = self.norm_1.lower(x, program)
        x = program.step("add", (x, self.attention.lower(h, program)), width=width)
        lowered: int = program.step("add", (x, self.mlp.lower(h, program)), width=width)
        return lowered


@dataclass(frozen=True)
class PostNormBlock(Layer):
    """``x = norm_1(x + attention(x)); x = norm_2(x + mlp(x))`` (Vaswani et al., 2017).

    Parameters
    ----------
    path : str
        Its name in the model.
    attention, dropout_1, norm_1 : Attention, Dropout, Norm
        The part that mixes positions.
    mlp, dropout_2, norm_2 : MLP or GatedMLP, Dropout, Norm
        The part that works on each position by itself.
    """

    attention: Attention
    dropout_1: Dropout
    norm_1: Norm
    mlp: MLP | GatedMLP
    dropout_2: Dropout
    norm_2: Norm

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Map the stream (B, T, D) to the stream (B, T, D)."""
        h = self.attention.forward(x, context, tape)
        x = self.norm_1.forward(x + self.dropout_1.forward(h, context, tape), context, tape)
        m = self.mlp.forward(x, context, tape)
        y = self.norm_2.forward(x + self.dropout_2.forward(m, context, tape), context, tape)
        if tape is not None:
            tape.see(self.path, y)
        return y

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Read `forward` upwards: each sum passes its gradient to both terms."""
        dy = grads.joined(self.path, dy)
        dy = self.norm_2.backward(dy, tape, grads)
        dm = self.dropout_2.backward(dy, tape, grads)
        dx = dy + self.mlp.backward(dm, tape, grads)
        dx = self.norm_1.backward(dx, tape, grads)
        dh = self.dropout_1.backward(dx, tape, grads)
        dx_in: np.ndarray = dx + self.attention.backward(dh, tape, grads)
        return dx_in

    def lower(self, x: int, program: Any) -> int:
        """Append both parts with their sums."""
        width = self.norm_1.weight.size
        h = self.attention.lower(x, program)
        x = self.norm_1.lower(program.step("add", (x, h), width=width), program)
        m = self.mlp.lower(x, program)
        return self.norm_2.lower(program.step("add", (x, m), width=width), program)


@dataclass(frozen=True)
class PostNormCrossBlock(Layer):
    """A post-norm block that reads the encoder's memory between its two parts (Vaswani et al., 2017).

    ``x = norm_1(x + attention(x)); x = norm_2(x + cross_attention(x, memory)); x = norm_3(x + mlp(x))``

    Parameters
    ----------
    path : str
        Its name in the model.
    attention, dropout_1, norm_1 : Attention, Dropout, Norm
        The part that mixes positions.
    cross_attention, dropout_2, norm_2 : CrossAttention, Dropout, Norm
        The part that reads the memory.
    mlp, dropout_3, norm_3 : MLP or GatedMLP, Dropout, Norm
        The part that works on each position by itself.
    """

    attention: Attention
    dropout_1: Dropout
    norm_1: Norm
    cross_attention: CrossAttention
    dropout_2: Dropout
    norm_2: Norm
    mlp: MLP | GatedMLP
    dropout_3: Dropout
    norm_3: Norm

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Map the stream (B, T, D) to the stream (B, T, D)."""
        h = self.attention.forward(x, context, tape)
        x = self.norm_1.forward(x + self.dropout_1.forward(h, context, tape), context, tape)
        c = self.cross_attention.forward(x, context, tape)
        x = self.norm_2.forward(x + self.dropout_2.forward(c, context, tape), context, tape)
        m = self.mlp.forward(x, context, tape)
        y = self.norm_3.forward(x + self.dropout_3.forward(m, context, tape), context, tape)
        if tape is not None:
            tape.see(self.path, y)
        return y

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Read `forward` upwards: each sum passes its gradient to both terms."""
        dy = grads.joined(self.path, dy)
        dy = self.norm_3.backward(dy, tape, grads)
        dm = self.dropout_3.backward(dy, tape, grads)
        dx = dy + self.mlp.backward(dm, tape, grads)
        dx = self.norm_2.backward(dx, tape, grads)
        dc = self.dropout_2.backward(dx, tape, grads)
        dx = dx + self.cross_attention.backward(dc, tape, grads)
        dx = self.norm_1.backward(dx, tape, grads)
        dh = self.dropout_1.backward(dx, tape, grads)
        dx_in: np.ndarray = dx + self.attention.backward(dh, tape, grads)
        return dx_in

    def lower(self, x: int, program: Any) -> int:
        """Append the three parts with their sums."""
        width = self.norm_1.weight.size
        h = self.attention.lower(x, program)
        x = self.norm_1.lower(program.step("add", (x, h), width=width), program)
        c = self.cross_attention.lower(x, program)
        x = self.norm_2.lower(program.step("add", (x, c), width=width), program)
        m = self.mlp.lower(x, program)
        return self.norm_3.lower(program.step("add", (x, m), width=width), program)


@dataclass(frozen=True)
class PreNormCrossBlock(Layer):
    """A pre-norm block that reads the encoder's memory between its two parts (Raffel et al., 2020).

    ``x = x + attention(norm_1(x)); x = x + cross_attention(norm_2(x), memory); x = x + mlp(norm_3(x))``

    Parameters
    ----------
    path : str
        Its name in the model.
    norm_1, attention, dropout_1 : Norm, Attention, Dropout
        The part that mixes positions.
    norm_2, cross_attention, dropout_2 : Norm, CrossAttention, Dropout
        The part that reads the memory.
    norm_3, mlp, dropout_3 : Norm, MLP or GatedMLP, Dropout
        The part that works on each position by itself.
    """

    norm_1: Norm
    attention: Attention
    dropout_1: Dropout
    norm_2: Norm
    cross_attention: CrossAttention
    dropout_2: Dropout
    norm_3: Norm
    mlp: MLP | GatedMLP
    dropout_3: Dropout

    @property
    def _branches(self) -> tuple[_Branch, _Branch, _Branch]:
        """The parts, in order."""
        return (
            _Branch(self.norm_1, self.attention, None, self.dropout_1, 1.0),
            _Branch(self.norm_2, self.cross_attention, None, self.dropout_2, 1.0),
            _Branch(self.norm_3, self.mlp, None, self.dropout_3, 1.0),
        )

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Map the stream (B, T, D) to the stream (B, T, D)."""
        for branch in self._branches:
            x = branch.forward(x, context, tape)
        if tape is not None:
            tape.see(self.path, x)
        return x

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Read `forward` upwards."""
        dx = grads.joined(self.path, dy)
        for branch in reversed(self._branches):
            dx = branch.backward(dx, tape, grads)
        return dx

    def lower(self, x: int, program: Any) -> int:
        """Append the parts with their sums."""
        for branch in self._branches:
            x = branch.lower(x, program)
        return x

    def couplings(self) -> Iterator[Coupling]:
        """Yield heads and neurons; no heads where those of self-attention, which are as many, have to stay."""
        for coupling in super().couplings():
            if not self.attention.biased or "n_heads" not in coupling.sizes:
                yield coupling
