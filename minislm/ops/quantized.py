"""Products with quantized matrices: float activations, or activations rounded to signed bytes on the fly.

The arrays are those of a `minislm.ops.formats.Format`: packed codes, scales, and zeros where the format is asymmetric.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minislm.errors import UsageError, unknown
from minislm.ops.formats import Format
from minislm.ops.tiles import Decode, product_by_tiles, product_t_by_tiles, row_tiles

ACTIVATION_GROUPS = {"int8-row": 0, "int8-32": 32, "static": 0}
"""How activations may be rounded: inputs that share a scale, 0 for the whole row. Static: one scale, known before."""

_TINY = np.float32(2.0**-120)  # a maximum or scale below it counts as zero: 127 / maximum would be infinite


def quantized_product(
    x_NI: np.ndarray,
    codes_OP: np.ndarray,
    scales_OJ: np.ndarray,
    zeros_OJ: np.ndarray | None = None,
    *,
    format: Format,
) -> np.ndarray:
    """Multiply float rows by the transpose of a quantized matrix.

    Parameters
    ----------
    x_NI : ndarray, (N, I), float32 or float64
        Input rows.
    codes_OP : ndarray, (O, P), uint8
        Packed codes.
    scales_OJ : ndarray, (O, J), float16 or float32
        Scale of each group.
    zeros_OJ : ndarray, (O, J), uint8, optional
        Code of zero in each group of an asymmetric format.
    format : Format
        What the arrays mean.

    Returns
    -------
    ndarray, (N, O)
        In the dtype of `x_NI`.

    Notes
    -----
    ``y[n, o] = sum_i x[n, i] * scale[o, j(i)] * (code[o, i] - zero[o, j(i)])``, with ``j(i) = i // group``.
    2NOI operations plus the decoding of OI codes; reads ``bits / 32`` of a float32 matrix. Values are decoded to
    float32 in row tiles of at most 1 MiB and accumulate in the dtype of `x_NI`.

    References
    ----------
    B. Jacob et al., 2017, arXiv 1712.05877, equation 1 (the values).

    Examples
    --------
    >>> import numpy as np
    >>> from minislm.ops.formats import format_named
    >>> codes_OP = np.array([[0x9A]], np.uint8)  # codes 10 and 9: two steps and one step above zero (8)
    >>> x_NI = np.array([[1.0, 10.0]], np.float32)
    >>> quantized_product(x_NI, codes_OP, np.array([[0.5]], np.float32), format=format_named("int4"))
    array([[6.]], dtype=float32)
    """
    decode = _decoder(codes_OP, scales_OJ, zeros_OJ, format, x_NI.shape[1])
    return product_by_tiles(x_NI, len(codes_OP), decode)


def quantized_product_t(
    dy_NO: np.ndarray,
    codes_OP: np.ndarray,
    scales_OJ: np.ndarray,
    zeros_OJ: np.ndarray | None = None,
    *,
    format: Format,
    n_inputs: int,
) -> np.ndarray:
    """Multiply float rows by a quantized matrix: the gradient of `quantized_product`'s input.

    Parameters
    ----------
    dy_NO : ndarray, (N, O), float32 or float64
        Gradient of the output.
    codes_OP : ndarray, (O, P), uint8
        Packed codes.
    scales_OJ : ndarray, (O, J), float16 or float32
        Scale of each group.
    zeros_OJ : ndarray, (O, J), uint8, optional
        Code of zero in each group of an asymmetric format.
    format : Format
        What the arrays mean.
    n_inputs : int
        Columns of the matrix, I, which packed rows do not tell.

    Returns
    -------
    ndarray, (N, I)
        In the dtype of `dy_NO`.

    Notes
    -----
    ``dx[n, i] = sum_o dy[n, o] * w[o, i]`` with the values w of `quantized_product`, at the same cost.

    References
    ----------
    B. Jacob et al., 2017, arXiv 1712.05877, equation 1 (the values).

    Examples
    --------
    >>> import numpy as np
    >>> from minislm.ops.formats import format_named
    >>> codes_OP, scales_OJ = np.array([[0x9A]], np.uint8), np.array([[0.5]], np.float32)
    >>> dy_NO = np.array([[2.0]], np.float32)
    >>> quantized_product_t(dy_NO, codes_OP, scales_OJ, format=format_named("int4"), n_inputs=2)
    array([[2., 1.]], dtype=float32)
    """
    return product_t_by_tiles(dy_NO, n_inputs, _decoder(codes_OP, scales_OJ, zeros_OJ, format, n_inputs))


def quantized_rows(
    ids_N: np.ndarray,
    codes_OP: np.ndarray,
    scales_OJ: np.ndarray,
    zeros_OJ: np.ndarray | None = None,
    *,
    format: Format,
    n_inputs: int,
) -> np.ndarray:
    """Look rows of a quantized matrix up.

    Parameters
    ----------
    ids_N : ndarray, (N,), int64
        Wanted rows.
    codes_OP : ndarray, (O, P), uint8
        Packed codes.
    scales_OJ : ndarray, (O, J), float16 or float32
        Scale of each group.
    zeros_OJ : ndarray, (O, J), uint8, optional
        Code of zero in each group of an asymmetric format.
    format : Format
        What the arrays mean.
    n_inputs : int
        Columns of the matrix, I.

    Returns
    -------
    ndarray, (N, I), float32
        Row ``ids[n]`` at place n.

    Notes
    -----
    ``w[n, i] = scale[ids[n], j(i)] * (code[ids[n], i] - zero[ids[n], j(i)])``: NI products, nothing accumulates.

    References
    ----------
    B. Jacob et al., 2017, arXiv 1712.05877, equation 1 (the values).

    Examples
    --------
    >>> import numpy as np
    >>> from minislm.ops.formats import format_named
    >>> codes_OP, scales_OJ = np.array([[0x88], [0x9A]], np.uint8), np.array([[1.0], [0.5]], np.float32)
    >>> quantized_rows(np.array([1]), codes_OP, scales_OJ, format=format_named("int4"), n_inputs=2)
    array([[1. , 0.5]], dtype=float32)
    """
    zeros_NJ = None if zeros_OJ is None else zeros_OJ[ids_N]
    return format.decode(format.unpack(codes_OP[ids_N], n_inputs), scales_OJ[ids_N], zeros_NJ)


def quantize_activations(x_NI: np.ndarray, *, group: int, scale: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Round activations to signed bytes.

    Parameters
    ----------
    x_NI : ndarray, (N, I), float32 or float64
        Activations.
    group : int
        Inputs that share a scale; 0 for the whole row.
    scale : float, optional
        Scale of every group; what lies beyond 127 steps becomes 127. None: each group's own, beyond which nothing lies.

    Returns
    -------
    codes_NI : ndarray, (N, I), int8
        From -127 to 127.
    scales_NJ : ndarray, (N, J), float32
        `scale`, or ``max|x| / 127`` of each group; NaN, with all codes 0, where a group holds a NaN or an infinity.

    Notes
    -----
    ``code = round(x * (127 / max|x|))``, or ``clip(round(x * (1 / scale)), -127, 127)``, halves to even, all in
    float32; ``x ~ scale * code`` within half a step where nothing is clipped. A group whose maximum, or given scale, is
    below 2**-120 becomes zero. About 4NI operations.

    References
    ----------
    T. Dettmers et al., "LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale", 2022, arXiv 2208.07339,
    section 2.1 (absmax quantization); B. Jacob et al., 2017, arXiv 1712.05877, section 3 (scales known before).

    Examples
    --------
    >>> import numpy as np
    >>> x_NI = np.array([[1.0, -2.0, 0.25]], np.float32)
    >>> quantize_activations(x_NI, group=0)
    (array([[  64, -127,   16]], dtype=int8), array([[0.01574803]], dtype=float32))
    >>> quantize_activations(x_NI, group=0, scale=0.01)
    (array([[ 100, -127,   25]], dtype=int8), array([[0.01]], dtype=float32))
    """
    n_rows, n_inputs = x_NI.shape
    x_NI = x_NI.astype(np.float32, copy=False)
    starts_J = np.arange(0, max(n_inputs, 1), group or max(n_inputs, 1))
    largest_NJ = np.zeros((n_rows, len(starts_J)), np.float32)
    if n_inputs:
        np.maximum.reduceat(np.abs(x_NI), starts_J, axis=1, out=largest_NJ)
    if scale is None:
        size_NJ, steps = largest_NJ, np.float32(127)
    else:
        size_NJ, steps = np.full_like(largest_NJ, scale), np.float32(1)
    usable_NJ = (size_NJ >= _TINY) & np.isfinite(largest_NJ)
    inverse_NJ = np.divide(steps, size_NJ, out=np.zeros_like(size_NJ), where=usable_NJ)
    scales_NJ = np.where(size_NJ < _TINY, np.float32(0), size_NJ / steps)
    scales_NJ[~np.isfinite(largest_NJ)] = np.nan
    sizes_J = np.diff(starts_J, append=n_inputs)
    with np.errstate(over="ignore"):  # what is infinitely many steps away is clipped
        steps_NI = np.where(np.isfinite(x_NI), x_NI, np.float32(0)) * np.repeat(inverse_NJ, sizes_J, axis=1)
    return np.rint(steps_NI).clip(-127, 127).astype(np.int8), scales_NJ


def activation_group(activations: str, scale: float | None) -> int:
    """Return how many inputs share a scale, after a check that a scale comes exactly where it is known before.

    Parameters
    ----------
    activations : str
        A key of `ACTIVATION_GROUPS`.
    scale : float or None
        The scale that came with it.

    Returns
    -------
    int
        0 for the whole row.

    Raises
    ------
    UnsupportedError
        Code ``unknown_activations``.
    UsageError
        Code ``bad_activation_scale``.
    """
    if activations not in ACTIVATION_GROUPS:
        raise unknown("activations", activations, ACTIVATION_GROUPS)
    if (scale is None) == (activations == "static"):
        raise UsageError(
            "bad_activation_scale", f"static activations need a scale, and no others take one: {activations}, {scale}"
        )
    return ACTIVATION_GROUPS[activations]


def quantized_product_int8(
    x_NI: np.ndarray,
    codes_OP: np.ndarray,
    scales_OJ: np.ndarray,
    zeros_OJ: np.ndarray | None = None,
    *,
    format: Format,
    activations: str,
    activation_scale: float | None = None,
) -> np.ndarray:
    """Multiply rows, rounded to signed bytes on the fly, by the transpose of a quantized matrix.

    Parameters
    ----------
    x_NI : ndarray, (N, I), float32 or float64
        Input rows.
    codes_OP : ndarray, (O, P), uint8
        Packed codes.
    scales_OJ : ndarray, (O, J), float16 or float32
        Scale of each group.
    zeros_OJ : ndarray, (O, J), uint8, optional
        Code of zero in each group of an asymmetric format.
    format : Format
        What the arrays mean.
    activations : {"int8-row", "int8-32", "static"}
        One scale for each row of `x_NI`, for every 32 inputs of it, or for all of them, known before.
    activation_scale : float, optional
        The scale of static activations; given with them alone.

    Returns
    -------
    ndarray, (N, O)
        In the dtype of `x_NI`; its precision is float32.

    Raises
    ------
    UnsupportedError, UsageError
        As `activation_group`.

    Notes
    -----
    Let a *segment* be the inputs that share both an activation scale a and a weight scale s. Then
    ``y[n, o] = sum_segments (a * s) * sum_{i in segment} xcode[n, i] * (code[o, i] - zero)``.
    The inner sums are of whole numbers and exact (here float64 multiplies them, which BLAS has; kernels use int32);
    each is rounded to float32 once, multiplied by the float32 product ``a * s``, and the segments are added in
    increasing order in float32. 2NOI integer and 2NOJ float operations. Not linear in x: the error against float
    activations is at most ``sum_i |w[o, i]| * a / 2``, and more where a static scale clips.

    References
    ----------
    B. Jacob et al., 2017, arXiv 1712.05877, section 2.2, equation 3; T. Dettmers et al., 2022, arXiv 2208.07339.

    Examples
    --------
    >>> import numpy as np
    >>> from minislm.ops.formats import format_named
    >>> codes_OP, scales_OJ = np.array([[0x9A]], np.uint8), np.array([[0.5]], np.float32)
    >>> x_NI = np.array([[1.0, 127.0]], np.float32)
    >>> quantized_product_int8(x_NI, codes_OP, scales_OJ, format=format_named("int4"), activations="int8-row")
    array([[64.5]], dtype=float32)
    """
    n_inputs = x_NI.shape[1]
    group = activation_group(activations, activation_scale)
    x_codes_NI, x_scales_NJ1 = quantize_activations(x_NI, group=group, scale=activation_scale)

    def codes_of(rows: slice) -> np.ndarray:
        return format.unpack(codes_OP[rows], n_inputs)

    y_NO = product_of_codes(x_codes_NI, x_scales_NJ1, codes_of, scales_OJ, zeros_OJ, format=format, group=group)
    return y_NO.astype(x_NI.dtype, copy=False)


def product_of_codes(
    x_codes_NI: np.ndarray,
    x_scales_NJ1: np.ndarray,
    codes_of: Callable[[slice], np.ndarray],
    scales_OJ: np.ndarray,
    zeros_OJ: np.ndarray | None,
    *,
    format: Format,
    group: int,
) -> np.ndarray:
    """Multiply rounded rows by the transpose of a matrix of codes, as the Notes of `quantized_product_int8` say.

    Parameters
    ----------
    x_codes_NI : ndarray, (N, I), int8
        Codes of the rows.
    x_scales_NJ1 : ndarray, (N, J1), float32
        Their scales, of which only the first counts where a group is a row.
    codes_of : callable
        From a slice of outputs to their codes, (outputs, I), uint8.
    scales_OJ : ndarray, (O, J), float16 or float32
        Scale of each group of the matrix.
    zeros_OJ : ndarray, (O, J), uint8, optional
        Code of zero in each group of an asymmetric format.
    format : Format
        What they mean.
    group : int
        Inputs of a row that share a scale; 0 for all of them.

    Returns
    -------
    ndarray, (N, O), float32
        The product.
    """
    n_outputs, n_inputs = len(scales_OJ), x_codes_NI.shape[1]
    x_codes_NI = x_codes_NI.astype(np.float64)
    scales_OJ = scales_OJ.astype(np.float32)
    segment = min(filter(None, (group, format.group)), default=max(n_inputs, 1))
    y_NO = np.zeros((len(x_codes_NI), n_outputs), np.float32)
    for rows in row_tiles(n_outputs, n_inputs * 8):
        zeros = None if zeros_OJ is None else zeros_OJ[rows]
        steps = format.code_steps(codes_of(rows), zeros).astype(np.float64)
        for first in range(0, n_inputs, segment):
            span = slice(first, first + segment)
            dots = (x_codes_NI[:, span] @ steps[:, span].T).astype(np.float32)
            x_scale = x_scales_NJ1[:, first // group if group else 0, None]
            y_NO[:, rows] += dots * (x_scale * scales_OJ[rows, first // format.group if format.group else 0])
    return y_NO


def _decoder(
    codes_OP: np.ndarray, scales_OJ: np.ndarray, zeros_OJ: np.ndarray | None, format: Format, n_inputs: int
) -> Decode:
    """Return the function that decodes a range of rows."""

    def decode(rows: slice) -> np.ndarray:
        zeros = None if zeros_OJ is None else zeros_OJ[rows]
        return format.decode(format.unpack(codes_OP[rows], n_inputs), scales_OJ[rows], zeros)

    return decode
