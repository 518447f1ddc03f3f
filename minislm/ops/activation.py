"""The nonlinear functions between two products.

Each saves its arguments only: what else backward needs is a few operations an entry, and the feed-forward part is the
widest of the model, so that a number kept for every entry would cost more than computing it again. Only `tanh` saves
its result, of which its derivative is a polynomial.
"""

from __future__ import annotations

import math

import numpy as np

from minislm.ops.erf import erf

Saved = tuple[np.ndarray]


def gelu(x: np.ndarray) -> tuple[np.ndarray, Saved]:
    """Multiply every entry by the probability that a standard normal number lies below it.

    Parameters
    ----------
    x : ndarray, any shape, float32 or float64
        Arguments.

    Returns
    -------
    y : ndarray
        Results, of the same shape.
    saved : tuple
        ``(x,)``, for `gelu_backward`.

    Notes
    -----
    ::

        Φ(x) = (1 + erf(x / √2)) / 2
        y = x Φ(x)

    About 35 operations an entry in NumPy, most of them in `erf`.

    References
    ----------
    Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2.

    Examples
    --------
    >>> y, saved = gelu(np.array([-1.0, 0.0, 1.0]))
    >>> y.round(6)
    array([-0.158655,  0.      ,  0.841345])
    """
    y = _normal_below(x)
    y *= x
    return y, (x,)


def gelu_backward(dy: np.ndarray, saved: Saved) -> np.ndarray:
    """Return the gradient of `gelu`'s argument.

    Parameters
    ----------
    dy : ndarray
        Gradient of `gelu`'s result.
    saved : tuple
        What `gelu` saved.

    Returns
    -------
    ndarray
        Gradient of `x`, of the same shape.

    Notes
    -----
    ::

        dx = dy (Φ(x) + x φ(x)),      φ(x) = Φ'(x) = exp(-x² / 2) / √(2π)

    Examples
    --------
    >>> gelu_backward(np.array([1.0, 1.0]), (np.array([0.0, 20.0]),))
    array([0.5, 1. ])
    """
    (x,) = saved
    z = np.clip(x, -40.0, 40.0)  # beyond, φ is 0; the square of a larger number could overflow
    dx: np.ndarray = z * z
    dx *= -0.5
    np.exp(dx, out=dx)
    dx *= 1.0 / math.sqrt(2.0 * math.pi)  # undo Φ(x)
    dx *= z
    dx += _normal_below(x)
    dx *= dy  # undo y = Φ(x) * x
    return dx


def _normal_below(x: np.ndarray) -> np.ndarray:
    """Return Φ(x), the probability that a standard normal number lies below x."""
    below = erf(x * math.sqrt(0.5))
    below += 1.0
    below *= 0.5
    return below


def gelu_tanh(x: np.ndarray) -> tuple[np.ndarray, Saved]:
    """Approximate `gelu` with a hyperbolic tangent, as GPT-2 does.

    Parameters
    ----------
    x : ndarray, any shape, float32 or float64
        Arguments.

    Returns
    -------
    y : ndarray
        Results, of the same shape; at most 0.0005 from `gelu`.
    saved : tuple
        ``(x,)``, for `gelu_tanh_backward`.

    Notes
    -----
    ::

        y = x (1 + tanh(u)) / 2,      u = √(2/π) (x + 0.044715 x³)

    About 10 operations an entry.

    References
    ----------
    Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2.

    Examples
    --------
    >>> y, saved = gelu_tanh(np.array([-1.0, 0.0, 1.0]))
    >>> y.round(6)
    array([-0.158808,  0.      ,  0.841192])
    """
    y = _gelu_tanh(x)
    y += 1.0
    y *= x
    y *= 0.5
    return y, (x,)


def gelu_tanh_backward(dy: np.ndarray, saved: Saved) -> np.ndarray:
    """Return the gradient of `gelu_tanh`'s argument.

    Parameters
    ----------
    dy : ndarray
        Gradient of `gelu_tanh`'s result.
    saved : tuple
        What `gelu_tanh` saved.

    Returns
    -------
    ndarray
        Gradient of `x`, of the same shape.

    Notes
    -----
    ::

        t = tanh(u)
        dx = dy (1 + t + x (1 - t²) du) / 2,      du = √(2/π) (1 + 3 · 0.044715 x²)

    Examples
    --------
    >>> gelu_tanh_backward(np.array([1.0, 1.0]), (np.array([0.0, 20.0]),))
    array([0.5, 1. ])
    """
    (x,) = saved
    z = np.clip(x, -_FLAT, _FLAT)  # beyond, 1 - t * t is 0
    t = _gelu_tanh(x)
    dx: np.ndarray = z * z
    dx *= 3.0 * 0.044715
    dx += 1.0
    dx *= math.sqrt(2.0 / math.pi)  # undo u = √(2/π) (x + 0.044715 x³)
    dx *= z
    dx *= 1.0 - t * t  # undo t = tanh(u)
    dx += t
    dx += 1.0
    dx *= 0.5
    dx *= dy  # undo y = x * (1 + t) / 2
    return dx


_FLAT = 10.0  # from here on tanh(u) is 1 in every dtype, and x³ need not be computed


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    """Return tanh(√(2/π) (x + 0.044715 x³))."""
    z = np.clip(x, -_FLAT, _FLAT)
    u: np.ndarray = z * z
    u *= 0.044715
    u += 1.0
    u *= z
    u *= math.sqrt(2.0 / math.pi)
    np.tanh(u, out=u)
    return u


def relu(x: np.ndarray) -> tuple[np.ndarray, Saved]:
    """Replace negative entries by zero.

    Parameters
    ----------
    x : ndarray, any shape, float32 or float64
        Arguments.

    Returns
    -------
    y : ndarray
        Results, of the same shape.
    saved : tuple
        ``(x,)``, for `relu_backward`.

    Notes
    -----
    ::

        y = max(x, 0)

    One operation an entry.

    References
    ----------
    Glorot, Bordes and Bengio 2011, "Deep Sparse Rectifier Neural Networks", PMLR 15, section 3.

    Examples
    --------
    >>> y, saved = relu(np.array([-1.0, 0.0, 2.0]))
    >>> y
    array([0., 0., 2.])
    """
    return np.maximum(x, 0.0), (x,)


def relu_backward(dy: np.ndarray, saved: Saved) -> np.ndarray:
    """Return the gradient of `relu`'s argument.

    Parameters
    ----------
    dy : ndarray
        Gradient of `relu`'s result.
    saved : tuple
        What `relu` saved.

    Returns
    -------
    ndarray
        Gradient of `x`, of the same shape.

    Notes
    -----
    ::

        dx = dy where x > 0, else 0

    At 0 itself, where there is no derivative, the gradient is 0.

    Examples
    --------
    >>> relu_backward(np.array([5.0, 5.0, 5.0]), (np.array([-1.0, 0.0, 2.0]),))
    array([0., 0., 5.])
    """
    (x,) = saved
    dx: np.ndarray = dy * (x > 0)  # undo y = max(x, 0)
    return dx


def silu(x: np.ndarray) -> tuple[np.ndarray, Saved]:
    """Multiply every entry by its logistic function.

    Parameters
    ----------
    x : ndarray, any shape, float32 or float64
        Arguments.

    Returns
    -------
    y : ndarray
        Results, of the same shape.
    saved : tuple
        ``(x,)``, for `silu_backward`.

    Notes
    -----
    ::

        σ(x) = 1 / (1 + exp(-x))
        y = x σ(x)

    About 5 operations an entry.

    References
    ----------
    Elfwing, Uchibe and Doya 2017, arXiv:1702.03118, section 2.

    Examples
    --------
    >>> y, saved = silu(np.array([-np.log(3.0), 0.0, np.log(3.0)]))
    >>> (y / np.log(3.0)).round(6)
    array([-0.25,  0.  ,  0.75])
    """
    y = _logistic(x)
    y *= x
    return y, (x,)


def silu_backward(dy: np.ndarray, saved: Saved) -> np.ndarray:
    """Return the gradient of `silu`'s argument.

    Parameters
    ----------
    dy : ndarray
        Gradient of `silu`'s result.
    saved : tuple
        What `silu` saved.

    Returns
    -------
    ndarray
        Gradient of `x`, of the same shape.

    Notes
    -----
    ::

        dx = dy σ(x) (1 + x (1 - σ(x)))

    Examples
    --------
    >>> silu_backward(np.array([1.0, 1.0]), (np.array([0.0, 50.0]),))
    array([0.5, 1. ])
    """
    (x,) = saved
    s = _logistic(x)
    dx: np.ndarray = 1.0 - s  # undo σ(x), whose derivative is σ(x) (1 - σ(x))
    dx *= x
    dx += 1.0
    dx *= s
    dx *= dy  # undo y = σ(x) * x
    return dx


def tanh(x: np.ndarray) -> tuple[np.ndarray, Saved]:
    """Squeeze every entry between -1 and 1.

    Parameters
    ----------
    x : ndarray, any shape, float32 or float64
        Arguments.

    Returns
    -------
    y : ndarray
        Results, of the same shape.
    saved : tuple
        ``(y,)``, for `tanh_backward`.

    Notes
    -----
    ::

        y = (exp(x) - exp(-x)) / (exp(x) + exp(-x))

    About 20 operations an entry.

    References
    ----------
    Devlin et al. 2018, arXiv:1810.04805 (in its code, after the pooled vector).

    Examples
    --------
    >>> tanh(np.array([-100.0, 0.0, np.log(2.0)]))[0].round(6)
    array([-1. ,  0. ,  0.6])
    """
    y: np.ndarray = np.tanh(x)
    return y, (y,)


def tanh_backward(dy: np.ndarray, saved: Saved) -> np.ndarray:
    """Return the gradient of `tanh`'s argument.

    Parameters
    ----------
    dy : ndarray
        Gradient of `tanh`'s result.
    saved : tuple
        What `tanh` saved.

    Returns
    -------
    ndarray
        Gradient of `x`, of the same shape.

    Notes
    -----
    ::

        dx = dy (1 - y²)

    Examples
    --------
    >>> tanh_backward(np.array([1.0, 1.0]), (np.array([0.0, 0.6]),))
    array([1.  , 0.64])
    """
    (y,) = saved
    dx: np.ndarray = dy * (1.0 - y * y)  # undo y = tanh(x)
    return dx


def _logistic(x: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x)); where the exponential overflows, the quotient is the right 0."""
    s: np.ndarray = -x
    with np.errstate(over="ignore"):
        np.exp(s, out=s)
    s += 1.0
    np.reciprocal(s, out=s)
    return s
