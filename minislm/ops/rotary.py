"""Rotary positions, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from minislm.errors import UsageError


def rotary(
    x_NHK: np.ndarray,
    positions_N: np.ndarray,
    *,
    base: float = 10000.0,
    width: int | None = None,
    interleaved: bool = False,
) -> tuple[np.ndarray, Any]:
    """Turn pairs of entries by angles proportional to their row's position."""
    width = x_NHK.shape[-1] if width is None else width
    if width % 2 or not 0 <= width <= x_NHK.shape[-1]:
        raise UsageError(
            "bad_rotary_width", f"rotary width must be even and at most the head width {x_NHK.shape[-1]}, not {width}"
        )
    different, which_N = np.unique(positions_N, return_inverse=True)
    angles = different[:, None] * base ** (-np.arange(0, width, 2) / width)  # float64
    cos_NK2 = np.cos(angles).astype(x_NHK.dtype)[which_N]
    sin_NK2 = np.sin(angles).astype(x_NHK.dtype)[which_N]
    return _rotate(x_NHK, cos_NK2, sin_NK2, interleaved), (cos_NK2, sin_NK2, interleaved)


def rotary_backward(dy_NHK: np.ndarray, saved: Any) -> np.ndarray:
    """Return the gradient of `rotary`'s `x`."""
    cos_NK2, sin_NK2, interleaved = saved
    return _rotate(dy_NHK, cos_NK2, -sin_NK2, interleaved)  # undo y = rotate(x): turn back


def _rotate(x_NHK: np.ndarray, cos_NK2: np.ndarray, sin_NK2: np.ndarray, interleaved: bool) -> np.ndarray:
    half = cos_NK2.shape[1]
    width = 2 * half
    first, second = (slice(0, width, 2), slice(1, width, 2)) if interleaved else (slice(0, half), slice(half, width))
    cos, sin = cos_NK2[:, None], sin_NK2[:, None]
    y_NHK = np.empty_like(x_NHK, order="C")
    y_NHK[..., first] = x_NHK[..., first] * cos - x_NHK[..., second] * sin
    y_NHK[..., second] = x_NHK[..., second] * cos + x_NHK[..., first] * sin
    y_NHK[..., width:] = x_NHK[..., width:]
    return y_NHK
