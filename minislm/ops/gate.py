"""Gated activations: one product of the feed-forward part opens and closes the other.

In comparison with a plain activation there are two products in place of one, and the gradient flows to both.
"""

from __future__ import annotations

import numpy as np

from minislm.ops.activation import gelu, gelu_backward, gelu_tanh, gelu_tanh_backward, silu, silu_backward

Saved = tuple[np.ndarray, np.ndarray]


def silu_gate(gate: np.ndarray, up: np.ndarray) -> tuple[np.ndarray, Saved]:
    """Let one product of a gated feed-forward part through as far as `silu` of the other says.

    Parameters
    ----------
    gate : ndarray, any shape, float32 or float64
        What opens and closes.
    up : ndarray, same shape
        What is let through.

    Returns
    -------
    y : ndarray
        Results, of the same shape.
    saved : tuple
        ``(gate, up)``, for `silu_gate_backward`.

    Notes
    -----
    ::

        y = silu(gate) up

    About 6 operations an entry.

    References
    ----------
    Shazeer 2020, arXiv:2002.05202, equation 5 (SwiGLU).

    Examples
    --------
    >>> y, saved = silu_gate(np.array([0.0, 50.0]), np.array([7.0, 2.0]))
    >>> y
    array([  0., 100.])
    """
    y, _ = silu(gate)
    y *= up
    return y, (gate, up)


def silu_gate_backward(dy: np.ndarray, saved: Saved) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients of `silu_gate`'s arguments.

    Parameters
    ----------
    dy : ndarray
        Gradient of `silu_gate`'s result.
    saved : tuple
        What `silu_gate` saved.

    Returns
    -------
    dgate : ndarray
        Gradient of `gate`.
    dup : ndarray
        Gradient of `up`.

    Notes
    -----
    ::

        dgate = dy up silu'(gate)      dup = dy silu(gate)

    Examples
    --------
    >>> silu_gate_backward(np.array([1.0]), (np.array([0.0]), np.array([6.0])))
    (array([3.]), array([0.]))
    """
    gate, up = saved
    dup, _ = silu(gate)  # recomputed, as silu_backward recomputes what it needs
    dup *= dy  # undo y *= up
    dgate = silu_backward(dy * up, (gate,))  # undo y *= up, then y = silu(gate)
    return dgate, dup


def gelu_gate(gate: np.ndarray, up: np.ndarray) -> tuple[np.ndarray, Saved]:
    """Let one product of a gated feed-forward part through as far as `gelu` of the other says.

    Parameters
    ----------
    gate : ndarray, any shape, float32 or float64
        What opens and closes.
    up : ndarray, same shape
        What is let through.

    Returns
    -------
    y : ndarray
        Results, of the same shape.
    saved : tuple
        ``(gate, up)``, for `gelu_gate_backward`.

    Notes
    -----
    ::

        y = gelu(gate) up

    About 36 operations an entry.

    References
    ----------
    Shazeer 2020, arXiv:2002.05202, equation 5 (GEGLU).

    Examples
    --------
    >>> y, saved = gelu_gate(np.array([0.0, 50.0]), np.array([7.0, 2.0]))
    >>> y
    array([  0., 100.])
    """
    y, _ = gelu(gate)
    y *= up
    return y, (gate, up)


def gelu_gate_backward(dy: np.ndarray, saved: Saved) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients of `gelu_gate`'s arguments.

    Parameters
    ----------
    dy : ndarray
        Gradient of `gelu_gate`'s result.
    saved : tuple
        What `gelu_gate` saved.

    Returns
    -------
    dgate : ndarray
        Gradient of `gate`.
    dup : ndarray
        Gradient of `up`.

    Notes
    -----
    ::

        dgate = dy up gelu'(gate)      dup = dy gelu(gate)

    Examples
    --------
    >>> gelu_gate_backward(np.array([1.0]), (np.array([0.0]), np.array([6.0])))
    (array([3.]), array([0.]))
    """
    gate, up = saved
    dup, _ = gelu(gate)  # recomputed, as gelu_backward recomputes what it needs
    dup *= dy  # undo y *= up
    dgate = gelu_backward(dy * up, (gate,))  # undo y *= up, then y = gelu(gate)
    return dgate, dup


def gelu_tanh_gate(gate: np.ndarray, up: np.ndarray) -> tuple[np.ndarray, Saved]:
    """Let one product of a gated feed-forward part through as far as `gelu_tanh` of the other says.

    Parameters
    ----------
    gate : ndarray, any shape, float32 or float64
        What opens and closes.
    up : ndarray, same shape
        What is let through.

    Returns
    -------
    y : ndarray
        Results, of the same shape.
    saved : tuple
        ``(gate, up)``, for `gelu_tanh_gate_backward`.

    Notes
    -----
    ::

        y = gelu_tanh(gate) up

    The gate of T5 1.1 and Gemma. About 16 operations an entry.

    References
    ----------
    Shazeer 2020, arXiv:2002.05202, equation 5; Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2.

    Examples
    --------
    >>> y, saved = gelu_tanh_gate(np.array([0.0, 50.0]), np.array([7.0, 2.0]))
    >>> y
    array([  0., 100.])
    """
    y, _ = gelu_tanh(gate)
    y *= up
    return y, (gate, up)


def gelu_tanh_gate_backward(dy: np.ndarray, saved: Saved) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients of `gelu_tanh_gate`'s arguments.

    Parameters
    ----------
    dy : ndarray
        Gradient of `gelu_tanh_gate`'s result.
    saved : tuple
        What `gelu_tanh_gate` saved.

    Returns
    -------
    dgate : ndarray
        Gradient of `gate`.
    dup : ndarray
        Gradient of `up`.

    Notes
    -----
    ::

        dgate = dy up gelu_tanh'(gate)      dup = dy gelu_tanh(gate)

    Examples
    --------
    >>> gelu_tanh_gate_backward(np.array([1.0]), (np.array([0.0]), np.array([6.0])))
    (array([3.]), array([0.]))
    """
    gate, up = saved
    dup, _ = gelu_tanh(gate)  # recomputed, as gelu_tanh_backward recomputes what it needs
    dup *= dy  # undo y *= up
    dgate = gelu_tanh_backward(dy * up, (gate,))  # undo y *= up, then y = gelu_tanh(gate)
    return dgate, dup
