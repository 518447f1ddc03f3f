"""Panels of floats: a matrix laid out so that rows meet 32 outputs at a time, and read it in the order it stands in.

A *panel* holds 32 rows of the matrix side by side: for each input, the numbers of its 32 outputs. Outputs that fill the
last panel up are zeros.
"""

from __future__ import annotations

import numpy as np

from minislm.ops.tiles import product_by_tiles

OUTPUTS = 32
"""Outputs of a panel: two registers of 512 bits."""


def pack_float_panels(w_OI: np.ndarray) -> np.ndarray:
    """Lay a matrix out in panels.

    Parameters
    ----------
    w_OI : ndarray, (O, I), any float
        The matrix.

    Returns
    -------
    ndarray, (panels, I, 32)
        The same numbers in the same dtype; zeros beyond the last output.

    Notes
    -----
    ``panels[p, i, z] = w[32 p + z, i]``.

    References
    ----------
    K. Goto and R. van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008, ACM TOMS 34(3),
    doi:10.1145/1356052.1356053, section 5 (packing).

    Examples
    --------
    >>> pack_float_panels(np.array([[1.0, 2.0], [3.0, 4.0]]))[0, :, :3]
    array([[1., 3., 0.],
           [2., 4., 0.]])
    """
    n_outputs, n_inputs = w_OI.shape
    panels = np.zeros((-(-n_outputs // OUTPUTS), n_inputs, OUTPUTS), w_OI.dtype)
    whole = n_outputs // OUTPUTS
    panels[:whole] = w_OI[: whole * OUTPUTS].reshape(whole, OUTPUTS, n_inputs).swapaxes(1, 2)
    if whole < len(panels):
        panels[whole, :, : n_outputs % OUTPUTS] = w_OI[whole * OUTPUTS :].T
    return panels


def unpack_float_panels(panels: np.ndarray, n_outputs: int) -> np.ndarray:
    """Undo `pack_float_panels`.

    Parameters
    ----------
    panels : ndarray, (panels, I, 32)
        Panels.
    n_outputs : int
        Of the matrix.

    Returns
    -------
    ndarray, (O, I)
        The matrix.

    Examples
    --------
    >>> unpack_float_panels(pack_float_panels(np.array([[1.0, 2.0], [3.0, 4.0]])), 2)
    array([[1., 2.],
           [3., 4.]])
    """
    return panels.swapaxes(1, 2).reshape(len(panels) * OUTPUTS, panels.shape[1])[:n_outputs]


def float_panel_product(
    x_NI: np.ndarray, panels: np.ndarray, b_O: np.ndarray | None = None, *, n_outputs: int
) -> np.ndarray:
    """Multiply rows by the transpose of a matrix in panels, and add a bias.

    Parameters
    ----------
    x_NI : ndarray, (N, I), float32 or float64
        Rows.
    panels : ndarray, (panels, I, 32), float32, float16 or bfloat16
        What `pack_float_panels` returned.
    b_O : ndarray, (O,), optional
        Bias.
    n_outputs : int
        Of the matrix.

    Returns
    -------
    ndarray, (N, O)
        ``x @ W.T + b`` in the dtype of `x_NI`.

    Notes
    -----
    ::

        y = x Wᵀ + b

    2 N O I operations. Numbers of 16 bits are widened, which is exact; sums accumulate in the dtype of `x_NI`.

    References
    ----------
    K. Goto and R. van de Geijn 2008, doi:10.1145/1356052.1356053, section 4.

    Examples
    --------
    >>> panels = pack_float_panels(np.array([[3.0, 4.0], [5.0, 6.0]]))
    >>> float_panel_product(np.array([[1.0, 2.0]]), panels, np.array([0.5, 0.0]), n_outputs=2)
    array([[11.5, 17. ]])
    """

    def rows_of(rows: slice) -> np.ndarray:
        first = rows.start // OUTPUTS
        some = unpack_float_panels(panels[first : -(-rows.stop // OUTPUTS)], rows.stop - first * OUTPUTS)
        return some[rows.start % OUTPUTS :]

    y_NO = product_by_tiles(x_NI, n_outputs, rows_of)
    if b_O is not None:
        y_NO += b_O
    return y_NO
