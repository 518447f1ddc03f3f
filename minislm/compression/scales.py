"""Scales of quantized weights that clip a few of them, so that the rest are rounded more finely."""

from __future__ import annotations

import numpy as np

from minislm.ops.formats import TERNARY, Format

SHARES = tuple(1 - step / 40 for step in range(1, 25))  # of the widest scale: 0.975 to 0.4


def least_squares(storage: Format, w_OI: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Choose for each group the scale, of 25, with the least sum of squared errors.

    They are that of `Format.fit` and shares of it, or, of a ternary format, of twice it.

    Parameters
    ----------
    storage : Format
        What is stored.
    w_OI : ndarray, (O, I), float32 or float64
        The matrix.

    Returns
    -------
    scales_OJ : ndarray, (O, J), float16 or float32
        As stored; the error of no group is larger than with `Format.fit`.
    zeros_OJ : ndarray, (O, J), uint8, or None
        Those of `Format.fit`.

    Raises
    ------
    DataError
        As `Format.fit`.

    References
    ----------
    Nagel et al. (2021), "A white paper on neural network quantization", arXiv 2106.08295, section 3.1.
    """
    best_OJ, zeros_OJ = storage.fit(w_OI)
    widest_OJ = _widest(storage, best_OJ)
    least_OJ = _errors(storage, w_OI, best_OJ, zeros_OJ)
    for share in SHARES:
        scales_OJ = storage.stored(share * widest_OJ)
        errors_OJ = _errors(storage, w_OI, scales_OJ, zeros_OJ)
        better_OJ = errors_OJ < least_OJ
        best_OJ[better_OJ], least_OJ[better_OJ] = scales_OJ[better_OJ], errors_OJ[better_OJ]
    return best_OJ, zeros_OJ


def _widest(storage: Format, scales_OJ: np.ndarray) -> np.ndarray:
    """Return the scales of `Format.fit`, which clip nothing; of a ternary format twice those.

    The best scale of normally distributed weights is 1.53 times the mean of their magnitudes, and that of weights with
    longer tails lies higher.
    """
    return scales_OJ.astype(np.float32) * np.float32(2 if storage.levels == TERNARY else 1)


def _errors(storage: Format, w_OI: np.ndarray, scales_OJ: np.ndarray, zeros_OJ: np.ndarray | None) -> np.ndarray:
    """Sum the squared errors of each group."""
    values_OI = storage.decode(storage.round(w_OI, scales_OJ, zeros_OJ), scales_OJ, zeros_OJ)
    starts_J = np.arange(0, w_OI.shape[1], storage.group or w_OI.shape[1])
    sums_OJ: np.ndarray = np.add.reduceat(np.square(values_OI - w_OI), starts_J, axis=1)
    return sums_OJ
