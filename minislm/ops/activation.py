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
        (6.7824065e-06, 4.1106646e-04, 4.2269407e-03, 5.5748093e-02, 1.9290583e-01, 1.1283792e00),
        (2.6001491e-07, 7.2498424e-05, 1.4210275e-03, 1.6295343e-02, 1.1750209e-01, 5.0429177e-01, 1.0),
    ),
    "float64": (
        6.0,
        (
            1.5077131565874445142e-17,
            2.1718122325632416569e-14,
            3.3260565965398491686e-12,
            1.7441324630357788116e-10,
            6.837813083072817079e-9,
            1.7221523525456655225e-7,
            3.9424294183322321667e-6,
            0.000057724019970439589869,
            0.00086189493878181651431,
            0.0069586181178017178294,
            0.066345471944936535365,
            0.22143950075927852221,
            1.1283791670955125264,
        ),
        (
            8.5576913522158191506e-16,
            3.2701768221020412466e-13,
            2.5705255029201904035e-11,
            1.139047017929788254e-9,
            3.5647977527844549693e-8,
            8.4626074979980349449e-7,
            0.000015686449312373422097,
            0.00022844073568620868319,
            0.0025863358284976526426,
            0.02212636399200218211,
            0.13532347070785940313,
            0.52957898126501894562,
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
