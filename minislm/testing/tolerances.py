"""How close two floating-point results must be, derived from the dtype and from how many terms each entry sums."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def tolerance(dtype: Any, *, length: int = 1, factor: float = 4.0) -> float:
    """Return the relative error that rounding alone may cause.

    Parameters
    ----------
    dtype : dtype-like
        Of the arithmetic; for integers the answer is 0.
    length : int
        How many products each entry sums.
    factor : float
        Room for several sums or roundings in a row.

    Returns
    -------
    float
        ``factor * eps * sqrt(length)``.

    Notes
    -----
    Rounding errors of a sum of n terms behave like a random walk, so that they grow with sqrt(n), not with n, with a
    probability that `factor` brings near 1. The error is relative to the sum of the terms' magnitudes: where terms
    cancel, give `assert_close` that sum as `scale`.

    References
    ----------
    Higham and Mary 2019, "A New Approach to Probabilistic Rounding Error Analysis", SIAM Journal on Scientific
    Computing 41(5), doi:10.1137/18M1226312.

    Examples
    --------
    >>> f"{tolerance(np.float32, length=100, factor=2.0):.2e}"
    '2.38e-06'
    """
    dtype = np.dtype(dtype)
    if not np.issubdtype(dtype, np.inexact):
        return 0.0
    return factor * float(np.finfo(dtype).eps) * math.sqrt(max(length, 1))


def assert_close(
    actual: Any,
    expected: Any,
    *,
    dtype: Any = None,
    length: int = 1,
    factor: float = 4.0,
    scale: Any = None,
    name: str = "result",
) -> float:
    """Check that a result equals its reference within the derived tolerance.

    Infinities must be equal, and not-a-number may only stand where the reference has it too.

    Parameters
    ----------
    actual : array-like
        What the code under test returned.
    expected : array-like
        The reference, of the same shape.
    dtype : dtype-like, optional
        Of the arithmetic; None: the dtype of `actual`.
    length : int
        How many products each entry sums.
    factor : float
        Room for several sums or roundings in a row.
    scale : array-like, optional
        What the tolerance is relative to, such as the sum of the terms' magnitudes, of a shape that broadcasts to the
        result's; None: the largest finite magnitude of `expected`.
    name : str
        What to call the result in the message.

    Returns
    -------
    float
        The largest error in units of its bound, from 0 to 1.

    Raises
    ------
    AssertionError
        With the index and both values of the worst entry.

    Examples
    --------
    >>> assert_close(np.float32([1.0, 2.0]), [1.0, 2.0])
    0.0
    >>> assert_close(np.float32([1.0, np.nan]), [1.0, 2.0])
    Traceback (most recent call last):
    AssertionError: result[1] is nan, expected 2.0 within 9.5e-07 (error inf bounds; 1 of 2 entries wrong)
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape != expected.shape:
        raise AssertionError(f"{name} has shape {actual.shape}, expected {expected.shape}")
    dtype = actual.dtype if dtype is None else np.dtype(dtype)
    a, e = actual.astype(np.float64), expected.astype(np.float64)
    if not a.size:
        return 0.0
    if scale is None:
        scale = np.abs(e, where=np.isfinite(e), out=np.zeros_like(e)).max()
    bound = np.broadcast_to(tolerance(dtype, length=length, factor=factor) * np.asarray(scale, np.float64), a.shape)
    same = (a == e) | (np.isnan(a) & np.isnan(e))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        units = np.where(same, 0.0, np.abs(a - e) / bound)
    units[np.isnan(units)] = np.inf
    wrong = ~(units <= 1.0)
    if wrong.any():
        at = np.unravel_index(units.argmax(), units.shape)
        raise AssertionError(
            f"{name}[{', '.join(str(i) for i in at)}] is {actual[at]}, expected {expected[at]} within {bound[at]:.2g} "
            f"(error {units[at]:.3g} bounds; {wrong.sum()} of {wrong.size} entries wrong)"
        )
    return float(units.max())
