"""Laws of what rounds: activations that become signed bytes, and weights that are rounded while they are trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minislm.ops.quantized import ACTIVATION_GROUPS, quantize_activations
from minislm.testing.tolerances import assert_close
from minislm.testing.weights import bits, exact
from minislm.weights.blocks import Blocks
from minislm.weights.fake_quantized import FakeQuantized
from minislm.weights.quantized import Quantized
from minislm.weights.sparse import Sparse


def check_rounded_activations(weight: Quantized | Blocks | Sparse, seed: int = 0) -> None:
    """Check that rounding activations costs no more than half a step of each, and what a known scale clips.

    Parameters
    ----------
    weight : Quantized, Blocks or Sparse
        With activations that are rounded.
    seed : int
        Of the rows, of very different size, one of them zero, some of them uneven.

    Raises
    ------
    AssertionError
        An output is farther from the float product than ``sum_i |w[o, i]| * (scale[n, i] / 2 + clipped[n, i])`` and
        rounding explain.
    """
    rng = np.random.default_rng(seed)
    x_NI = rng.normal(size=(5, weight.n_inputs)) * 10.0 ** rng.integers(-3, 4, (5, 1))
    x_NI[3:, : 32 * (weight.n_inputs // 64)] *= 1e-3  # one scale for the row would be too coarse for these
    x_NI[2] = 0.0
    x_NI = x_NI.astype(np.float32)
    group = ACTIVATION_GROUPS[weight.activations]
    _, scales = quantize_activations(x_NI, group=group)
    if isinstance(weight, Quantized) and weight.activation_scale is not None:
        scales = np.broadcast_to(weight.activation_scale, (5, 1))
    steps_NI = np.repeat(scales.astype(np.float64), group or weight.n_inputs, axis=1)[:, : weight.n_inputs]
    clipped_NI = np.maximum(np.abs(x_NI) - 127 * steps_NI, 0.0)
    w_OI = exact(weight)
    bound_NO = (steps_NI / 2 + clipped_NI) @ np.abs(w_OI.T) + 1e-6 * weight.n_inputs * (np.abs(x_NI) @ np.abs(w_OI.T))
    error_NO = np.abs(weight.apply(x_NI) - x_NI @ w_OI.T)
    assert (error_NO <= bound_NO).all(), f"error {error_NO.max():.3g} beyond the bound {bound_NO.max():.3g}"


def check_fake_quantized(weight: FakeQuantized, seed: int = 0) -> None:
    """Check values and gradients against the formula of LSQ, one weight after the other.

    Parameters
    ----------
    weight : FakeQuantized
        To be checked.
    seed : int
        Of the rows.

    Raises
    ------
    AssertionError
        A value is not, bit for bit, what the formula says and what `quantized` stores; or a gradient is wrong.
    """
    rng = np.random.default_rng(seed)
    n_outputs, n_inputs = weight.shape
    x_NI, dy_NO = rng.normal(size=(4, n_inputs)), rng.normal(size=(4, n_outputs))
    values, dw, dscales = _by_loops(weight, dy_NO.T @ x_NI)
    assert bits(weight.dense()) == bits(values.astype(weight.array.dtype)), "values differ from the formula"
    real = weight.quantized().dense()
    assert bits(real) == bits(values), "values differ from what is stored"
    gradients = weight.grads(x_NI, dy_NO)
    scale = np.abs(dy_NO).sum(0).max() * np.abs(x_NI).max() * weight.format.step_range[1]
    assert_close(gradients[""], dw, dtype=np.float32, scale=scale, name="the gradient of the weights")
    assert_close(
        gradients["scales"], dscales, dtype=np.float32, length=n_inputs, scale=scale, name="the gradient of the scales"
    )


def _by_loops(weight: FakeQuantized, dw_OI: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return values and gradients by equations 1, 2, 3 and 5 of arXiv 1902.08153, which rounds to the nearest level."""
    format, w, scales = weight.format, weight.array, weight.scales
    low, high = (-127, 127) if format.bits == 8 else (-(2 ** (format.bits - 1)), 2 ** (format.bits - 1) - 1)
    levels = format.levels or range(low, high + 1)
    low, high = levels[0], levels[-1]
    values, dw = np.zeros(w.shape, np.float32), np.zeros(w.shape)
    dscales = np.zeros(scales.shape)
    for output in range(w.shape[0]):
        for group in range(scales.shape[1]):
            inputs = range(w.shape[1])[group * format.group : (group + 1) * format.group or None]
            scale = np.float16(scales[output, group]) if format.group else np.float32(scales[output, group])
            for i in inputs:
                number, gradient = w[output, i], dw_OI[output, i]
                steps = number / w.dtype.type(scale) if scale else np.sign(number) * 1e9
                code = _nearest(levels, float(steps))
                values[output, i] = np.float32(scale) * np.float32(code)
                if low < steps < high:
                    dw[output, i] = gradient
                    dscales[output, group] += gradient * (code - float(steps))
                else:
                    dscales[output, group] += gradient * (low if steps <= low else high)
            dscales[output, group] /= (len(inputs) * high) ** 0.5
    return values, dw, dscales


def _nearest(levels: Sequence[int], steps: float) -> int:
    """Return the nearest level; half-way, the even one of whole numbers in a row, and the lower one of others."""
    near = sorted(levels, key=lambda level: abs(level - steps))[:2]
    if len(near) == 2 and abs(near[0] - steps) == abs(near[1] - steps):
        return min(near, key=lambda level: level % 2) if abs(near[0] - near[1]) == 1 else min(near)
    return near[0]
