"""The feed-forward part of a block: plain (up, activation, down) or gated (gate times up, down)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.dispatch import ops
from minislm.layers.base import Context, Grads, Layer, Tape
from minislm.layers.coupling import Coupling
from minislm.layers.linear import Linear

ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu")
GATED = ("gelu", "gelu_tanh", "silu")  # those that a gate has


@dataclass(frozen=True)
class MLP(Layer):
    """Two Linears around an activation: ``down(f(up(x)))``.

    Parameters
    ----------
    path : str
        Its name in the model.
    up, down : Linear
        D to F, and F to D.
    activation : str
        An op of `ops.activation`, such as ``"gelu"``.
    """

    up: Linear
    down: Linear
    activation: str

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Map (..., D) to (..., D)."""
        h, saved = getattr(ops, self.activation)(self.up.forward(x, context, tape))
        if tape is not None:
            tape.push(self.path, saved)
        return self.down.forward(h, context, tape)

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Return the gradient of the input."""
        dh = self.down.backward(dy, tape, grads)
        du = getattr(ops, f"{self.activation}_backward")(dh, tape.take(self.path))
        return self.up.backward(du, tape, grads)

    def lower(self, x: int, program: Any) -> int:
        """Append up, activation and down."""
        h = program.step(self.activation, (self.up.lower(x, program),), width=self.up.weight.shape[0])
        return self.down.lower(h, program)

    def couplings(self) -> Iterator[Coupling]:
        """Yield the neurons."""
        yield Coupling(self.path, self.up.weight.shape[0], {"d_ff": 1}, (self.up.path,), (self.down.path,))


@dataclass(frozen=True)
class GatedMLP(Layer):
    """Three Linears around a gate: ``down(f(gate(x)) * up(x))`` (Shazeer, 2020, arXiv 2002.05202).

    Parameters
    ----------
    path : str
        Its name in the model.
    gate, up, down : Linear
        D to F, D to F, and F to D.
    activation : str
        An op of `ops.gate`, such as ``"silu_gate"``.
    """

    gate: Linear
    up: Linear
    down: Linear
    activation: str

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Map (..., D) to (..., D)."""
        g, u = self.gate.forward(x, context, tape), self.up.forward(x, context, tape)
        h, saved = getattr(ops, self.activation)(g, u)
        if tape is not None:
            tape.push(self.path, saved)
        return self.down.forward(h, context, tape)

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Return the gradient of the input."""
        dh = self.down.backward(dy, tape, grads)
        dg, du = getattr(ops, f"{self.activation}_backward")(dh, tape.take(self.path))
        dx = self.up.backward(du, tape, grads)
        dx += self.gate.backward(dg, tape, grads)
        return dx

    def lower(self, x: int, program: Any) -> int:
        """Append gate, up, their product and down."""
        g, u = self.gate.lower(x, program), self.up.lower(x, program)
        return self.down.lower(program.step(self.activation, (g, u), width=self.up.weight.shape[0]), program)

    def couplings(self) -> Iterator[Coupling]:
        """Yield the neurons, each with its gate."""
        producers = (self.gate.path, self.up.path)
        yield Coupling(self.path, self.up.weight.shape[0], {"d_ff": 1}, producers, (self.down.path,))
