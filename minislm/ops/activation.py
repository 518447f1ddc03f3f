"""The nonlinear functions between two products, forward and backward."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

# erf(x) = x P(x^2) / Q(x^2) up to `edge`, beyond which erf is 1 to the precision of the dtype. Fitted to the least
# largest relative error, 3e-9 for float32 and 5e-17 for float64; no coefficient is negative, so that nothing cancels.
_ERF = {
    "float32": (
        4.0,
        (6.7824067e-06, 0.00041106646, 0.0042269407, 0.055748094, 0.19290583, 1.1283792),
        (2.600149e-07, 7.2498427e-05, 0.0014210275, 0.016295344, 0.11750209, 0.50429177, 1),
    ),
    "float64": (
        6.0,
        (
            1.5077131565874447e-17,
            2.1718122325632418e-14,
            3.326056596539849e-12,
            1.744132463035779e-10,
            6.837813083072817e-09,
            1.7221523525456656e-07,
            3.942429418332232e-06,
            5.7724019970439587e-05,
            0.0008618949377818165,
            0.006958618117801718,
            0.06634547194493653,
            0.2214395007592785,
            1.1283791670955126,
        ),
        (
            8.557691352215819e-16,
            3.2701768221020415e-13,
            2.5705255029201904e-11,
            1.1390470179297883e-09,
            3.564797752784455e-08,
            8.462607497998035e-07,
            1.568644931237342e-05,
            0.00022844073568620868,
            0.002586335828497653,
            0.02212636399200218,
            0.1353234707078594,
            0.5295789812650189,
            1.0,
        ),
    ),
}


def erf(x: np.ndarray) -> np.ndarray:
    """Return the error function."""
    edge, above, below = _ERF[x.dtype.name]
    y: np.ndarray = np.clip(x, -edge, edge)
    square = y * y
    y *= _polynomial(square, above)
    y /= _polynomial(square, below)
    return y


def _polynomial(x: np.ndarray, coefficients: tuple[float, ...]) -> np.ndarray:
    """Evaluate a polynomial by Horner's rule, highest power first."""
    y = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        y *= x
        y += coefficient
    return y


def gelu(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """Multiply every entry by the probability that a standard normal number is below it."""
    y = erf(x * math.sqrt(0.5))
    y += 1.0
    y *= x
    y *= 0.5
    return y, (x,)


def gelu_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """Return the gradient of `gelu`'s `x`."""
    (x,) = saved
    return dy * _gelu_slope(x)


def _gelu_slope(x: np.ndarray) -> np.ndarray:
    z = np.clip(x, -40.0, 40.0)
    slope = np.exp(-0.5 * z * z)
    slope *= z
    slope *= 1.0 / math.sqrt(2.0 * math.pi)
    below = erf(x * math.sqrt(0.5))
    below += 1.0
    below *= 0.5
    slope += below
    return slope


def gelu_tanh(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """Approximate `gelu` by a hyperbolic tangent."""
    y = _gelu_tanh_inner(np.clip(x, -10.0, 10.0))
    y += 1.0
    y *= x
    y *= 0.5
    return y, (x,)


def gelu_tanh_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """Return the gradient of `gelu_tanh`'s `x`."""
    (x,) = saved
    z = np.clip(x, -10.0, 10.0)
    t = _gelu_tanh_inner(z)
    dt = 1.0 - t * t
    dt *= z
    dt *= math.sqrt(2.0 / math.pi) * (1.0 + 3.0 * 0.044715 * z * z)
    dt += t
    dt += 1.0
    dt *= 0.5
    dt *= dy
    return dt


def _gelu_tanh_inner(z: np.ndarray) -> np.ndarray:
    u = z * z
    u *= 0.044715
    u += 1.0
    u *= z
    u *= math.sqrt(2.0 / math.pi)
    return np.tanh(u, out=u)


def relu(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """Replace negative entries by zero."""
    return np.maximum(x, 0.0), (x,)


def relu_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """Return the gradient of `relu`'s `x`."""
    (x,) = saved
    return np.where(x > 0, dy, dy.dtype.type(0))


def silu(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """Multiply every entry by its logistic function."""
    y = _sigmoid(x)
    y *= x
    return y, (x,)


def silu_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """Return the gradient of `silu`'s `x`."""
    (x,) = saved
    return dy * _silu_slope(x)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    s = -x
    with np.errstate(over="ignore"):
        np.exp(s, out=s)
    s += 1.0
    return np.reciprocal(s, out=s)


def _silu_slope(x: np.ndarray) -> np.ndarray:
    s = _sigmoid(x)
    slope = 1.0 - s
    slope *= x
    slope += 1.0
    slope *= s
    return slope


def silu_gate(gate: np.ndarray, up: np.ndarray) -> tuple[np.ndarray, Any]:
    """Multiply one half of a gated feed-forward part by `silu` of the other."""
    y, _ = silu(gate)
    y *= up
    return y, (gate, up)


def silu_gate_backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients of `silu_gate`'s `gate` and `up`."""
    gate, up = saved
    dup, _ = silu(gate)
    dup *= dy
    dgate = _silu_slope(gate)
    dgate *= up
    dgate *= dy
    return dgate, dup


def gelu_gate(gate: np.ndarray, up: np.ndarray) -> tuple[np.ndarray, Any]:
    """Multiply one half of a gated feed-forward part by `gelu` of the other."""
    y, _ = gelu(gate)
    y *= up
    return y, (gate, up)


def gelu_gate_backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients of `gelu_gate`'s `gate` and `up`."""
    gate, up = saved
    dup, _ = gelu(gate)
    dup *= dy
    dgate = _gelu_slope(gate)
    dgate *= up
    dgate *= dy
    return dgate, dup
