"""The error function, which NumPy lacks."""

from __future__ import annotations

import numpy as np

# erf(x) = x P(x^2) / Q(x^2) up to `edge`, beyond which erf is 1 to the precision of the dtype. Fitted to the least
# largest relative error, 3e-9 for float32 and 5e-17 for float64; no coefficient is negative, so that nothing cancels.
_ERF = {
    "float32": (
        4.0,
        (6.7824067e-06, 0.00041106646, 0.0042269407, 0.055748094, 0.19290583, 1.1283792),
        (2.600149e-07, 7.2498427e-05, 0.0014210275, 0.016295344, 0.11750209, 0.50429177, 1),
    ),
    "float64": (
        6.0,
        (
            1.5077131565874447e-17,
            2.1718122325632418e-14,
            3.326056596539849e-12,
            1.744132463035779e-10,
            6.837813083072817e-09,
            1.7221523525456656e-07,
            3.942429418332232e-06,
            5.7724019970439587e-05,
            0.0008618949377818165,
            0.006958618117801718,
            0.06634547194493653,
            0.2214395007592785,
            1.1283791670955126,
        ),
        (
            8.557691352215819e-16,
            3.2701768221020415e-13,
            2.5705255029201904e-11,
            1.1390470179297883e-09,
            3.564797752784455e-08,
            8.462607497998035e-07,
            1.568644931237342e-05,
            0.00022844073568620868,
            0.002586335828497653,
            0.02212636399200218,
            0.1353234707078594,
            0.5295789812650189,
            1.0,
        ),
    ),
}


def erf(x: np.ndarray) -> np.ndarray:
    """Return the error function, twice the area under exp(-t²) / √π from 0 to x.

    Parameters
    ----------
    x : ndarray, any shape, float32 or float64
        Arguments.

    Returns
    -------
    ndarray
        Values from -1 to 1, right to 6 units in the last place.

    Notes
    -----
    One rational function of x² times x, without branches: NumPy then runs it in about 30 passes over the array.

    Examples
    --------
    >>> erf(np.array([0.0, 0.5, 10.0])).round(6)
    array([0.    , 0.5205, 1.    ])
    """
    edge, above, below = _ERF[x.dtype.name]
    y: np.ndarray = np.clip(x, -edge, edge)
    square = y * y
    y *= _polynomial(square, above)
    y /= _polynomial(square, below)
    np.copysign(1.0, x, out=y, where=np.abs(x) >= edge)  # exactly, so that 1 - erf times a large number is 0
    return y


def _polynomial(x: np.ndarray, coefficients: tuple[float, ...]) -> np.ndarray:
    """Evaluate a polynomial by Horner's rule, highest power first."""
    y = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        y *= x
        y += coefficient
    return y
