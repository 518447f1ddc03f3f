"""The gated feed-forward part's silu(gate) * up, in one compiled loop."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, void

from minislm.kernels import border
from minislm.kernels.jit import compiled, logistic, reads, writes


def silu_gate(
    gate: np.ndarray, up: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1
) -> tuple[np.ndarray, Any]:
    """Same as `ops.gate.silu_gate`."""
    gate, up = border.checked(gate, "gate"), border.checked(up, "up")
    border.same_shape(up, "up", gate.shape)
    y = border.output(out, gate.shape, gate, up)
    _forward(gate.reshape(-1), up.reshape(-1), y.reshape(-1))
    return border.delivered(y, out), (gate, up)


def silu_gate_backward(
    dy: np.ndarray, saved: Any, *, out: np.ndarray | None = None, threads: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Same as `ops.gate.silu_gate_backward`."""
    dy, gate, up = border.checked(dy, "dy"), border.checked(saved[0], "gate"), border.checked(saved[1], "up")
    border.same_shape(dy, "dy", gate.shape)
    border.same_shape(up, "up", gate.shape)
    dgate, dup = border.output(out, gate.shape, dy, gate, up), np.empty_like(gate)
    _backward(dy.reshape(-1), gate.reshape(-1), up.reshape(-1), dgate.reshape(-1), dup.reshape(-1))
    return border.delivered(dgate, out), dup


@compiled(void(reads(1), reads(1), writes(1)))
def _forward(gate, up, y):  # type: ignore[no-untyped-def]
    for i in range(gate.size):
        y[i] = gate[i] * logistic(gate[i]) * up[i]


@compiled(void(reads(1), reads(1), reads(1), writes(1), writes(1)))
def _backward(dy, gate, up, dgate, dup):  # type: ignore[no-untyped-def]
    for i in range(gate.size):
        x = gate[i]
        s = logistic(x)
        dgate[i] = dy[i] * up[i] * (s * (float32(1.0) + x * (float32(1.0) - s)))
        dup[i] = dy[i] * (x * s)
