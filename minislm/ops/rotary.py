"""Rotary positions: a query and a key turned by their positions meet at an angle that tells their distance."""

from __future__ import annotations

import numpy as np

from minislm.errors import UsageError

Saved = tuple[np.ndarray, np.ndarray, bool]


def rotary(
    x_NHK: np.ndarray,
    positions_N: np.ndarray,
    frequencies: tuple[float, ...],
    *,
    interleaved: bool = False,
    factor: float = 1.0,
) -> tuple[np.ndarray, Saved]:
    """Turn pairs of entries by angles proportional to their row's position.

    Parameters
    ----------
    x_NHK : ndarray, (N, H, K), float32 or float64
        Heads of queries or keys.
    positions_N : ndarray of int, (N,)
        Position of each row.
    frequencies : tuple of float
        By which angle each of F pairs turns from one position to the next. The first 2 F entries of a head are turned;
        the rest passes through.
    interleaved : bool
        Which entries are a pair: False: i and i + F (LLaMA, GPT-NeoX); True: 2 i and 2 i + 1 (GPT-J). Weights trained
        for one pairing are wrong for the other.
    factor : float
        Multiplies what is turned, which makes scores larger (YaRN, LongRoPE).

    Returns
    -------
    y_NHK : ndarray, (N, H, K)
        Turned heads.
    saved : tuple
        ``(cos_NF, sin_NF, interleaved)``, both multiplied, for `rotary_backward`.

    Raises
    ------
    UsageError
        Code ``bad_rotary_width``: more pairs than a head has.

    Notes
    -----
    For pair i at position n, which stands for a complex number::

        angle = n frequencies[i], usually with frequencies[i] = base^(-i / F)
        (a, b)  →  factor (a cos(angle) - b sin(angle), a sin(angle) + b cos(angle))

    Products of a turned query and a turned key depend on the distance of their positions only. Angles are computed in
    float64, because far positions times small frequencies lose their fraction in float32, and once for each different
    position. About 3 N H K operations.

    References
    ----------
    Su et al. 2021, arXiv:2104.09864, equations 15 and 34. Part of a head: Black et al. 2022, arXiv:2204.06745, section
    2.1.1. The factor: Peng et al. 2023, arXiv:2309.00071, section 3.4.

    Examples
    --------
    >>> y_NHK, saved = rotary(np.array([[[1.0, 0.0]], [[1.0, 0.0]]]), np.array([0, 1]), (1.0,))
    >>> y_NHK.round(4)  # turned by 0 and by 1
    array([[[1.    , 0.    ]],
    <BLANKLINE>
           [[0.5403, 0.8415]]])
    """
    if 2 * len(frequencies) > x_NHK.shape[-1]:
        raise UsageError(
            "bad_rotary_width",
            f"{len(frequencies)} pairs need heads of at least twice that width, not {x_NHK.shape[-1]}",
        )
    different, which_N = np.unique(positions_N, return_inverse=True)
    angles = different[:, None] * np.array(frequencies, np.float64)
    cos_NF = (factor * np.cos(angles)).astype(x_NHK.dtype)[which_N]
    sin_NF = (factor * np.sin(angles)).astype(x_NHK.dtype)[which_N]
    return _turn(x_NHK, cos_NF, sin_NF, interleaved), (cos_NF, sin_NF, interleaved)


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
    The transpose of a turn is the turn by minus the angle; the factor multiplies the gradient too.

    Examples
    --------
    >>> y_NHK, saved = rotary(np.array([[[3.0, 4.0]]]), np.array([17]), (1.0,))
    >>> rotary_backward(y_NHK, saved).round(12)
    array([[[3., 4.]]])
    """
    cos_NF, sin_NF, interleaved = saved
    return _turn(dy_NHK, cos_NF, -sin_NF, interleaved)  # undo y = turn(x): by minus the angle


def _turn(x_NHK: np.ndarray, cos_NF: np.ndarray, sin_NF: np.ndarray, interleaved: bool) -> np.ndarray:
    """Turn the pairs of each row by the angle whose cosine and sine are given."""
    half = cos_NF.shape[1]
    if interleaved:
        first, second = slice(0, 2 * half, 2), slice(1, 2 * half, 2)
    else:
        first, second = slice(0, half), slice(half, 2 * half)
    a, b, cos, sin = x_NHK[..., first], x_NHK[..., second], cos_NF[:, None], sin_NF[:, None]
    y_NHK = np.empty(x_NHK.shape, x_NHK.dtype)
    y_NHK[..., first] = a * cos - b * sin
    y_NHK[..., second] = a * sin + b * cos
    y_NHK[..., 2 * half :] = x_NHK[..., 2 * half :]
    return y_NHK
