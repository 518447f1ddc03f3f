"""Blocks: attention and a feed-forward part, each with its norm, its dropout and the sum that passes it by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.layers.attention import Attention
from minislm.layers.base import Context, Grads, Layer, Tape
from minislm.layers.cross_attention import CrossAttention
from minislm.layers.dropout import Dropout
from minislm.layers.mlp import MLP, GatedMLP
from minislm.layers.norm import Norm


@dataclass(frozen=True)
class PreNormBlock(Layer):
    """``x = x + attention(norm_1(x)); x = x + mlp(norm_2(x))`` (Radford et al., 2019).

    Parameters
    ----------
    path : str
        Its name in the model.
    norm_1, attention, dropout_1 : Norm, Attention, Dropout
        The part that mixes positions.
    norm_2, mlp, dropout_2 : Norm, MLP or GatedMLP, Dropout
        The part that works on each position by itself.
    """

    norm_1: Norm
    attention: Attention
    dropout_1: Dropout
    norm_2: Norm
    mlp: MLP | GatedMLP
    dropout_2: Dropout

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Map the stream (B, T, D) to the stream (B, T, D)."""
        h = self.norm_1.forward(x, context, tape)
        h = self.attention.forward(h, context, tape)
        x = x + self.dropout_1.forward(h, context, tape)
        m = self.norm_2.forward(x, context, tape)
        m = self.mlp.forward(m, context, tape)
        y: np.ndarray = x + self.dropout_2.forward(m, context, tape)
        if tape is not None:
            tape.see(self.path, y)
        return y

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Read `forward` upwards: each sum passes its gradient to both terms."""
        dy = grads.joined(self.path, dy)
        dm = self.dropout_2.backward(dy, tape, grads)
        dm = self.mlp.backward(dm, tape, grads)
        dx = dy + self.norm_2.backward(dm, tape, grads)
        dh = self.dropout_1.backward(dx, tape, grads)
        dh = self.attention.backward(dh, tape, grads)
        dx_in: np.ndarray = dx + self.norm_1.backward(dh, tape, grads)
        return dx_in

    def lower(self, x: int, program: Any) -> int:
        """Append both parts with their sums."""
        width = self.norm_1.weight.size
        h = self.attention.lower(self.norm_1.lower(x, program), program)
        x = program.step("add", (x, h), width=width)
        m = self.mlp.lower(self.norm_2.lower(x, program), program)
        lowered: int = program.step("add", (x, m), width=width)
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
