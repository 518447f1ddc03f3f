"""Rotary positions: a query and a key turned by their positions meet at an angle that tells their distance."""

from __future__ import annotations

import numpy as np

from minislm.errors import UsageError

Saved = tuple[np.ndarray, np.ndarray, bool]


def rotary(
    x_NHK: np.ndarray,
    positions_N: np.ndarray,
    *,
    base: float = 10000.0,
    width: int | None = None,
    interleaved: bool = False,
) -> tuple[np.ndarray, Saved]:
    """Turn pairs of entries by angles proportional to their row's position.

    Parameters
    ----------
    x_NHK : ndarray, (N, H, K), float32 or float64
        Heads of queries or keys.
    positions_N : ndarray of int, (N,)
        Position of each row.
    base : float
        The slowest pair turns by about 1 / `base` a position, the fastest by 1.
    width : int, optional
        How many entries of a head are turned, an even number; the rest passes through. None: all.
    interleaved : bool
        Which entries are a pair: False: i and i + width/2 (LLaMA, GPT-NeoX); True: 2 i and 2 i + 1 (GPT-J). Weights
        trained for one pairing are wrong for the other.

    Returns
    -------
    y_NHK : ndarray, (N, H, K)
        Turned heads.
    saved : tuple
        ``(cos_NK2, sin_NK2, interleaved)`` with K2 = width/2, for `rotary_backward`.

    Raises
    ------
    UsageError
        Code ``bad_rotary_width``: `width` is odd or larger than K.

    Notes
    -----
    For pair i at position n, which stands for a complex number::

        angle = n base^(-2 i / width)
        (a, b)  →  (a cos(angle) - b sin(angle), a sin(angle) + b cos(angle))

    Products of a turned query and a turned key depend on the distance of their positions only. Angles are computed in
    float64, because far positions times small frequencies lose their fraction in float32, and once for each different
    position. About 3 N H K operations.

    References
    ----------
    Su et al. 2021, arXiv:2104.09864, equations 15 and 34. Part of a head: Black et al. 2022, arXiv:2204.06745, section
    2.1.1.

    Examples
    --------
    >>> y_NHK, saved = rotary(np.array([[[1.0, 0.0]], [[1.0, 0.0]]]), np.array([0, 1]))
    >>> y_NHK.round(4)  # turned by 0 and by 1
    array([[[1.    , 0.    ]],
    <BLANKLINE>
           [[0.5403, 0.8415]]])
    """
    width = x_NHK.shape[-1] if width is None else width
    if width % 2 or not 0 <= width <= x_NHK.shape[-1]:
        raise UsageError(
            "bad_rotary_width",
            f"the rotated width must be even and from 0 to the head width {x_NHK.shape[-1]}, not {width}",
        )
    different, which_N = np.unique(positions_N, return_inverse=True)
    angles = different[:, None] * base ** (-np.arange(0, width, 2) / max(width, 1))
    cos_NK2 = np.cos(angles).astype(x_NHK.dtype)[which_N]
    sin_NK2 = np.sin(angles).astype(x_NHK.dtype)[which_N]
    return _turn(x_NHK, cos_NK2, sin_NK2, interleaved), (cos_NK2, sin_NK2, interleaved)


def rotary_backward(dy_NHK: np.ndarray, saved: Saved) -> np.ndarray:
    """Return the gradient of `rotary`'s heads.

    Parameters
    ----------
    dy_NHK : ndarray, (N, H, K)
        Gradient of `rotary`'s result.
    saved : tuple
        What `rotary` saved.

    Returns
    -------
    ndarray, (N, H, K)
        Gradient of the heads.

    Notes
    -----
    Turning keeps lengths, so that the transpose is the inverse: the gradient turns back by the same angle.

    Examples
    --------
    >>> y_NHK, saved = rotary(np.array([[[3.0, 4.0]]]), np.array([17]))
    >>> rotary_backward(y_NHK, saved).round(12)
    array([[[3., 4.]]])
    """
    cos_NK2, sin_NK2, interleaved = saved
    return _turn(dy_NHK, cos_NK2, -sin_NK2, interleaved)  # undo y = turn(x): by minus the angle


def _turn(x_NHK: np.ndarray, cos_NK2: np.ndarray, sin_NK2: np.ndarray, interleaved: bool) -> np.ndarray:
    """Turn the pairs of each row by the angle whose cosine and sine are given."""
    half = cos_NK2.shape[1]
    if interleaved:
        first, second = slice(0, 2 * half, 2), slice(1, 2 * half, 2)
    else:
        first, second = slice(0, half), slice(half, 2 * half)
    a, b, cos, sin = x_NHK[..., first], x_NHK[..., second], cos_NK2[:, None], sin_NK2[:, None]
    y_NHK = np.empty(x_NHK.shape, x_NHK.dtype)
    y_NHK[..., first] = a * cos - b * sin
    y_NHK[..., second] = a * sin + b * cos
    y_NHK[..., 2 * half :] = x_NHK[..., 2 * half :]
    return y_NHK
