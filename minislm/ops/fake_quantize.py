"""Quantization inside training: values as they will be stored, gradients as if rounding were not there."""

from __future__ import annotations

from typing import Any

import numpy as np

from minislm.ops.formats import Format


def fake_quantize(w_OI: np.ndarray, scales_OJ: np.ndarray, *, format: Format) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Replace weights by the values that they will have once quantized.

    Parameters
    ----------
    w_OI : ndarray, (O, I), float32 or float64
        The trained weights.
    scales_OJ : ndarray, (O, J), float32 or float64
        The trained scales; rounded here to what the format stores.
    format : Format
        A symmetric format.

    Returns
    -------
    w_OI : ndarray, (O, I)
        Bit for bit what the stored codes and scales decode to, in the dtype of `w_OI`.
    saved : tuple
        (w, scales, format). The rounding is done again in backward, which costs less than to keep its result.

    Raises
    ------
    DataError
        Code ``non_finite_weight`` or ``scale_overflow``.

    Notes
    -----
    ``v = w / s``, ``y = s * round(clip(v, -Qn, Qp))`` with the format's step range ``[-Qn, Qp]``; where a format has
    levels, rounded to the nearest of them. About 6OI
    operations; nothing accumulates.

    References
    ----------
    S. K. Esser et al., "Learned Step Size Quantization", 2019, arXiv 1902.08153, equations 1 and 2.

    Examples
    --------
    >>> import numpy as np
    >>> from minislm.ops.formats import format_named
    >>> w_OI = np.array([[0.3, -0.9, 5.0]])
    >>> fake_quantize(w_OI, np.array([[0.5]]), format=format_named("int3"))[0]
    array([[ 0.5, -1. ,  1.5]])
    """
    stored_OJ = format.stored(scales_OJ)
    y_OI = format.decode(format.round(w_OI, stored_OJ, None), stored_OJ, None).astype(w_OI.dtype, copy=False)
    return y_OI, (w_OI, scales_OJ, format)


def fake_quantize_backward(dy_OI: np.ndarray, saved: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the straight-through gradient of the weights and LSQ's gradient of the scales.

    Parameters
    ----------
    dy_OI : ndarray, (O, I)
        Gradient of the values.
    saved : tuple
        What `fake_quantize` saved.

    Returns
    -------
    dw_OI : ndarray, (O, I)
        `dy_OI` where the weight lies strictly inside the range, else zero.
    dscales_OJ : ndarray, (O, J)
        In the dtype of the scales.

    Notes
    -----
    Rounding is taken as the identity (an estimate: the true derivative is zero almost everywhere), clipping is not.
    With ``v = w / s``::

        dw = dy                       where -Qn < v < Qp, else 0
        ds = g * sum dy * (round(v) - v    where -Qn < v < Qp, else -Qn or Qp)

    summed over the group, with LSQ's ``g = 1 / sqrt(n * Qp)`` for a group of n weights, which makes a step of a scale
    about as large, relative to it, as one of a weight. About 8OI operations; sums in the dtype of `dy_OI`.

    References
    ----------
    S. K. Esser et al., 2019, arXiv 1902.08153, equations 3 and 5, section 2.2; Y. Bengio et al., "Estimating or
    Propagating Gradients Through Stochastic Neurons", 2013, arXiv 1308.3432.

    Examples
    --------
    >>> import numpy as np
    >>> from minislm.ops.formats import format_named
    >>> _, saved = fake_quantize(np.array([[0.3, -0.9, 5.0]]), np.array([[0.5]]), format=format_named("int3"))
    >>> dw_OI, dscales_OJ = fake_quantize_backward(np.ones((1, 3)), saved)
    >>> dw_OI
    array([[1., 1., 0.]])
    >>> dscales_OJ.round(4)  # (0.4 - 0.2 + 3) / sqrt(3 * 3)
    array([[1.0667]])
    """
    w_OI, scales_OJ, format = saved
    low, high = format.step_range
    n_inputs = w_OI.shape[1]
    stored_OJ = format.stored(scales_OJ)
    steps_OI = format.steps(w_OI, stored_OJ)
    rounded_OI = format.code_steps(format.round(w_OI, stored_OJ, None), None)
    inside_OI = (low < steps_OI) & (steps_OI < high)
    dw_OI = dy_OI * inside_OI  # undo y = s * round(clip(w / s)) towards w
    slopes_OI = dy_OI * (rounded_OI - np.where(inside_OI, steps_OI, 0))  # ... and towards s
    starts_J = np.arange(0, n_inputs, format.group or n_inputs)
    sizes_J = np.diff(starts_J, append=n_inputs)
    dscales_OJ = np.add.reduceat(slopes_OI, starts_J, axis=1) / np.sqrt(sizes_J * high)
    return dw_OI, dscales_OJ.astype(scales_OJ.dtype, copy=False)
