"""MobileBERT's block: attention and several feed-forward parts on a stream that is narrower inside.

References
----------
.. [1] Sun et al. (2020), "MobileBERT: a compact task-agnostic BERT for resource-limited devices", arXiv 2004.02984.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.layers.affine import Affine
from minislm.layers.attention import MultiHead
from minislm.layers.base import Context, Grads, Layer, Tape
from minislm.layers.dropout import Dropout
from minislm.layers.linear import Linear
from minislm.layers.mlp import MLP


@dataclass(frozen=True)
class Narrowed(Layer):
    """A Linear and an Affine: what a block sees of the stream.

    Parameters
    ----------
    path : str
        Its name in the model.
    dense : Linear
        D to C.
    norm : Affine
        After it.
    """

    dense: Linear
    norm: Affine

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Map (B, T, D) to (B, T, C)."""
        return self.norm.forward(self.dense.forward(x, context, tape), context, tape)

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Return the gradient of the input, (B, T, D)."""
        return self.dense.backward(self.norm.backward(dy, tape, grads), tape, grads)

    def lower(self, x: int, program: Any) -> int:
        """Append both."""
        return self.norm.lower(self.dense.lower(x, program), program)


@dataclass(frozen=True, kw_only=True)
class BottleneckAttention(MultiHead):
    """Attention in both directions whose queries and keys read one narrowed stream, and whose values the whole one.

    Parameters
    ----------
    path : str
        Its name in the model.
    query, key, value, output : Linear
        The projections: C to H*K, C to H*K, D to H*K, and H*K to C.
    layer, n_heads, n_kv_heads, d_head : int
        As of `MultiHead`.
    shared : Narrowed
        What queries and keys read.
    """

    shared: Narrowed

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Mix positions: (B, T, D) to (B, T, C)."""
        s = self.shared.forward(x, context, tape)
        q_BTHK = self.project(self.query, s, context, tape)
        k_BSGK = self.project(self.key, s, context, tape)
        v_BSGK = self.project(self.value, x, context, tape)
        y = self.mix(q_BTHK, k_BSGK, v_BSGK, tape, key_mask_BS=context.key_mask(x.shape[1]))
        return self.output.forward(y, context, tape)

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Return the gradient of the stream, (B, T, D)."""
        dmixed = self.output.backward(dy, tape, grads)
        dq_BTHK, dk_BSGK, dv_BSGK = self.mix_backward(dmixed, tape, grads)
        dx = self.project_backward(self.value, dv_BSGK, tape, grads)
        ds = self.project_backward(self.key, dk_BSGK, tape, grads)
        ds += self.project_backward(self.query, dq_BTHK, tape, grads)
        dx += self.shared.backward(ds, tape, grads)
        return dx

    def lower(self, x: int, program: Any) -> int:
        """Append the projections and one attention step over the whole text."""
        s = self.shared.lower(x, program)
        q, k, v = self.query.lower(s, program), self.key.lower(s, program), self.value.lower(x, program)
        attended = program.attend_all(q, k, v, n_heads=self.n_heads, d_head=self.d_head)
        return self.output.lower(attended, program)


@dataclass(frozen=True)
class ResidualMLP(Layer):
    """``norm(x + mlp(x))``.

    Parameters
    ----------
    path : str
        Its name in the model.
    mlp : MLP
        C to F to C.
    norm : Affine
        After the sum.
    """

    mlp: MLP
    norm: Affine

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Map (B, T, C) to the same."""
        return self.norm.forward(x + self.mlp.forward(x, context, tape), context, tape)

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Return the gradient of the input: the sum passes its own to both terms."""
        dy = self.norm.backward(dy, tape, grads)
        dx: np.ndarray = dy + self.mlp.backward(dy, tape, grads)
        return dx

    def lower(self, x: int, program: Any) -> int:
        """Append the sum and the norm."""
        width = self.norm.weight.size
        return self.norm.lower(program.step("add", (x, self.mlp.lower(x, program)), width=width), program)


@dataclass(frozen=True)
class BottleneckBlock(Layer):
    """Narrow the stream, attend, apply several feed-forward parts, widen, and add the stream ([1]_, figure 1 c).

    Parameters
    ----------
    path : str
        Its name in the model.
    enter : Narrowed
        The stream inside.
    attention : BottleneckAttention
        Reads the whole stream, and adds to the one inside.
    norm_1 : Affine
        After that sum.
    mlps : tuple of ResidualMLP
        All feed-forward parts but the last.
    mlp : ResidualMLP
        The last.
    leave : Linear
        C to D.
    dropout : Dropout
        After it.
    norm_2 : Affine
        After the sum with the stream.
    """

    enter: Narrowed
    attention: BottleneckAttention
    norm_1: Affine
    mlps: tuple[ResidualMLP, ...]
    mlp: ResidualMLP
    leave: Linear
    dropout: Dropout
    norm_2: Affine

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Map the stream (B, T, D) to the stream (B, T, D)."""
        h = self.enter.forward(x, context, tape)
        h = self.norm_1.forward(h + self.attention.forward(x, context, tape), context, tape)
        for mlp in (*self.mlps, self.mlp):
            h = mlp.forward(h, context, tape)
        h = self.dropout.forward(self.leave.forward(h, context, tape), context, tape)
        y = self.norm_2.forward(x + h, context, tape)
        if tape is not None:
            tape.see(self.path, y)
        return y

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Read `forward` upwards; the stream is read three times."""
        dy = grads.joined(self.path, dy)
        dy = self.norm_2.backward(dy, tape, grads)
        dh = self.leave.backward(self.dropout.backward(dy, tape, grads), tape, grads)
        for mlp in (self.mlp, *reversed(self.mlps)):
            dh = mlp.backward(dh, tape, grads)
        dh = self.norm_1.backward(dh, tape, grads)
        dx: np.ndarray = dy + self.attention.backward(dh, tape, grads)
        dx += self.enter.backward(dh, tape, grads)
        return dx

    def lower(self, x: int, program: Any) -> int:
        """Append all parts with their sums."""
        h = self.enter.lower(x, program)
        h = program.step("add", (h, self.attention.lower(x, program)), width=self.norm_1.weight.size)
        h = self.norm_1.lower(h, program)
        for mlp in (*self.mlps, self.mlp):
            h = mlp.lower(h, program)
        h = program.step("add", (x, self.leave.lower(h, program)), width=self.norm_2.weight.size)
        return self.norm_2.lower(h, program)
