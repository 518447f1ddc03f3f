"""Storage formats of quantized matrices: what is stored, never how it was chosen.

A format cuts each row of a matrix into groups and stores, per group, one scale (and, if asymmetric, one zero) and, per
weight, one whole number of a few bits. Rounding to nearest, GPTQ or training choose the numbers; all of them store them
here, and all of them read them back by `Format.decode`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minislm.errors import DataError, unknown
from minislm.ops.bits import pack_bits, unpack_bits

BITS = range(2, 9)
GROUPS = (0, 32, 64, 128)
TERNARY = (-1, 0, 1)
NF4 = (-127, -88, -67, -50, -36, -23, -12, 0, 10, 20, 31, 43, 56, 71, 92, 127)
"""The levels of NF4, each rounded to a whole 127th, so that products of bytes have them, too."""


@dataclass(frozen=True)
class Format:
    """How a row of weights becomes scales and small whole numbers.

    Parameters
    ----------
    name : str
        ``int<bits>`` (symmetric), ``uint<bits>`` (asymmetric), ``ternary`` or ``nf4``, followed by ``-<group>`` unless
        a group is a row.
    bits : int
        Bits of a code, 2 to 8.
    group : int
        Inputs that share a scale: 32, 64 or 128; 0 means the whole row. The last group of a row may be short.
    symmetric : bool
        Whether the code of the value zero is fixed; otherwise every group stores its own.
    levels : tuple of int, optional
        The steps that the codes of a symmetric format stand for, rising. None: the code less its zero.

    Notes
    -----
    ``value = scale * (code - zero)``. A symmetric format fixes ``zero = 2**(bits - 1)`` and does not store it; its
    codes use the whole range, save that 8 bits leave out code 0, so that products of two signed bytes cannot overflow
    what int8 instructions accumulate. Scales are float16 for groups and float32 for rows; zeros are uint8.

    With levels, ``value = scale * level[code]``. ``ternary`` has -1, 0 and 1, in 2 bits, and for a scale the mean of
    the magnitudes, so that what is larger is clipped: [2]_, equations 1 to 3, with a scale for each row or group
    instead of one for the matrix. ``nf4`` has the 16 levels of [3]_, appendix E, which are denser where normally
    distributed weights are; the largest magnitude takes the outermost. The published levels are fractions of it, and
    here whole 127ths, at most 1/254 away: so products of bytes have the very same weights as all others, and the error
    of a normally distributed matrix is a quarter of a percent larger.

    Code i of a row takes the bits ``[i * bits, (i + 1) * bits)`` of the row's little-endian bit stream. Rows end on
    whole bytes, and on whole groups where a format has them, the rest being zero bits.

    References
    ----------
    .. [1] B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
       Inference", 2017, arXiv 1712.05877, equation 1.
    .. [2] S. Ma et al., "The Era of 1-bit LLMs: All Large Language Models are in 1.58 Bits", 2024, arXiv 2402.17764.
    .. [3] T. Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", 2023, arXiv 2305.14314.

    Examples
    --------
    >>> import numpy as np
    >>> w_OI = np.array([[-0.8, 0.1, 0.45, 0.7]], np.float32)
    >>> int4 = format_named("int4")
    >>> scales_OJ, zeros_OJ = int4.fit(w_OI)
    >>> codes_OI = int4.round(w_OI, scales_OJ, zeros_OJ)
    >>> codes_OI
    array([[ 0,  9, 12, 15]], dtype=uint8)
    >>> int4.pack(codes_OI)
    array([[144, 252]], dtype=uint8)
    >>> int4.decode(codes_OI, scales_OJ, zeros_OJ).round(3)
    array([[-0.8,  0.1,  0.4,  0.7]], dtype=float32)
    >>> nf4 = format_named("nf4")
    >>> nf4.round(w_OI, nf4.fit(w_OI)[0], None)
    array([[ 0,  9, 13, 15]], dtype=uint8)
    """

    name: str
    bits: int
    group: int
    symmetric: bool
    levels: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def code_range(self) -> tuple[int, int]:
        """Smallest and largest code."""
        if self.levels:
            return 0, len(self.levels) - 1
        return (1 if self.symmetric and self.bits == 8 else 0), (1 << self.bits) - 1

    @property
    def zero(self) -> int:
        """Code of the value zero in a symmetric format."""
        return self.levels.index(0) if self.levels else 1 << (self.bits - 1)

    @cached_property
    def table(self) -> np.ndarray | None:
        """For each code its level as a code of 8 bits, ``level + 128``; None where levels are one step apart."""
        if self.levels is None or len(self.levels) == self.levels[-1] - self.levels[0] + 1:
            return None
        return np.array(self.levels, np.int16).astype(np.uint8) + np.uint8(128)

    @property
    def step_range(self) -> tuple[int, int]:
        """Smallest and largest number of steps from zero in a symmetric format (LSQ's -Qn and Qp)."""
        if self.levels:
            return self.levels[0], self.levels[-1]
        low, high = self.code_range
        return low - self.zero, high - self.zero

    @property
    def scale_dtype(self) -> np.dtype:
        """Dtype of stored scales."""
        return np.dtype(np.float16 if self.group else np.float32)

    def n_groups(self, n_inputs: int) -> int:
        """Count the scales of a row.

        Parameters
        ----------
        n_inputs : int
            Weights of the row.

        Returns
        -------
        int
            J.
        """
        return -(-n_inputs // self.group) if self.group else 1

    def row_bytes(self, n_inputs: int) -> int:
        """Count the bytes of a packed row.

        Parameters
        ----------
        n_inputs : int
            Weights of the row.

        Returns
        -------
        int
            P.
        """
        n_codes = self.n_groups(n_inputs) * self.group if self.group else n_inputs
        return -(-n_codes * self.bits // 8)

    def fit(self, w_OI: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Choose scales (and zeros) so that no weight is clipped; of a ternary format, the means of the magnitudes.

        Parameters
        ----------
        w_OI : ndarray, (O, I), float32 or float64
            The matrix.

        Returns
        -------
        scales_OJ : ndarray, (O, J), float16 or float32
            Rounded away from zero to what is stored, so that every weight lies within half a step of a code. A
            symmetric format has one step more below zero than above: where the largest weight is positive, the scale
            is negative, and that step is there for it. An all-zero group has scale 0.
        zeros_OJ : ndarray, (O, J), uint8, or None
            None for a symmetric format.

        Raises
        ------
        DataError
            Code ``non_finite_weight``, with the place; ``scale_overflow``: a scale exceeds what is stored.
        """
        if self.levels == TERNARY:
            return self._stored_up(self._mean_magnitudes(w_OI)), None
        high_OJ, low_OJ = self._extremes(w_OI)
        if self.symmetric:
            least, most = self.step_range
            upright_OJ = np.maximum(high_OJ / most, low_OJ / least)
            mirrored_OJ = np.maximum(high_OJ / -least, low_OJ / -most)
            scales_OJ = self._stored_up(np.minimum(upright_OJ, mirrored_OJ))
            return np.where(mirrored_OJ < upright_OJ, -scales_OJ, scales_OJ), None
        top = self.code_range[1]
        scales_OJ = self._stored_up((high_OJ - low_OJ) / top)
        zeros_OJ = np.rint(_steps(-low_OJ, scales_OJ.astype(np.float64)))
        return scales_OJ, np.clip(zeros_OJ, 0, top).astype(np.uint8)

    def round(self, w_OI: np.ndarray, scales_OJ: np.ndarray, zeros_OJ: np.ndarray | None) -> np.ndarray:
        """Round weights to the nearest codes; beyond the range, to its end.

        Parameters
        ----------
        w_OI : ndarray, (O, I), float32 or float64
            The matrix.
        scales_OJ : ndarray, (O, J)
            Scales as stored.
        zeros_OJ : ndarray, (O, J), uint8, or None
            Zeros of an asymmetric format.

        Returns
        -------
        ndarray, (O, I), uint8
            Codes, not packed. Halves go to the even number of steps; between the levels of a table, to the lower one.

        Raises
        ------
        DataError
            Code ``non_finite_weight``, with the place.
        """
        _check_finite(w_OI)
        codes_OI: np.ndarray = self.steps(w_OI, scales_OJ)
        if self.table is not None and self.levels:
            between = np.convolve(self.levels, [0.5, 0.5], "valid")
            return np.searchsorted(between.astype(codes_OI.dtype), codes_OI).astype(np.uint8)
        np.rint(codes_OI, out=codes_OI)
        codes_OI += self.zero if zeros_OJ is None else self.spread(zeros_OJ, w_OI.shape[1])
        low, high = self.code_range
        return codes_OI.clip(low, high).astype(np.uint8)

    def steps(self, w_OI: np.ndarray, scales_OJ: np.ndarray) -> np.ndarray:
        """Measure weights in steps.

        Parameters
        ----------
        w_OI : ndarray, (O, I), float32 or float64
            The matrix.
        scales_OJ : ndarray, (O, J)
            Scales as stored.

        Returns
        -------
        ndarray, (O, I)
            ``w / scale`` in the dtype of `w_OI`; at a zero scale, zero steps or infinitely many.
        """
        return _steps(w_OI, self.spread(scales_OJ, w_OI.shape[1]).astype(w_OI.dtype))

    def code_steps(self, codes_OI: np.ndarray, zeros_OJ: np.ndarray | None) -> np.ndarray:
        """Return the steps that codes stand for.

        Parameters
        ----------
        codes_OI : ndarray, (O, I), uint8
            Codes, not packed.
        zeros_OJ : ndarray, (O, J), uint8, or None
            Zeros of an asymmetric format.

        Returns
        -------
        ndarray, (O, I), float32
            Whole numbers: ``code - zero``, or the level of the code.
        """
        if self.table is not None:
            levels_OI: np.ndarray = self.table[codes_OI].astype(np.float32) - np.float32(128)
            return levels_OI
        steps_OI = codes_OI.astype(np.float32)
        steps_OI -= self.zero if zeros_OJ is None else self.spread(zeros_OJ, codes_OI.shape[1])
        return steps_OI

    def decode(self, codes_OI: np.ndarray, scales_OJ: np.ndarray, zeros_OJ: np.ndarray | None) -> np.ndarray:
        """Return the values that codes stand for.

        Parameters
        ----------
        codes_OI : ndarray, (O, I), uint8
            Codes, not packed.
        scales_OJ : ndarray, (O, J)
            Scales as stored.
        zeros_OJ : ndarray, (O, J), uint8, or None
            Zeros of an asymmetric format.

        Returns
        -------
        ndarray, (O, I), float32
            The scale times `code_steps`, one float32 rounding (none where scales are float16).
        """
        w_OI = self.code_steps(codes_OI, zeros_OJ)
        w_OI *= self.spread(scales_OJ.astype(np.float32), codes_OI.shape[1])
        return w_OI

    def decode_span(
        self, codes_OP: np.ndarray, scales_OJ: np.ndarray, zeros_OJ: np.ndarray | None, span: slice
    ) -> np.ndarray:
        """Decode only the columns of a range, straight from packed rows.

        Parameters
        ----------
        codes_OP : ndarray, (O, P), uint8
            Packed rows.
        scales_OJ : ndarray, (O, J)
            Scales as stored.
        zeros_OJ : ndarray, (O, J), uint8, or None
            Zeros of an asymmetric format.
        span : slice
            The columns, with plain bounds.

        Returns
        -------
        ndarray, (O, columns), float32
            The same numbers as those columns of the decoded matrix.
        """
        unit = self.group or 8  # where both a byte and a scale begin
        first = span.start // unit * unit
        codes = self.unpack(codes_OP[:, first * self.bits // 8 :], span.stop - first)
        groups = slice(first // unit, -(-span.stop // unit)) if self.group else slice(None)
        zeros = None if zeros_OJ is None else zeros_OJ[:, groups]
        return self.decode(codes, scales_OJ[:, groups], zeros)[:, span.start - first :]

    def pack(self, codes_OI: np.ndarray) -> np.ndarray:
        """Put codes side by side as bits.

        Parameters
        ----------
        codes_OI : ndarray, (O, I), uint8
            Codes, one in each byte.

        Returns
        -------
        ndarray, (O, P), uint8
            Packed rows.
        """
        return pack_bits(codes_OI, self.bits, self.row_bytes(codes_OI.shape[1]))

    def unpack(self, codes_OP: np.ndarray, n_inputs: int) -> np.ndarray:
        """Undo `pack`.

        Parameters
        ----------
        codes_OP : ndarray, (O, P), uint8
            Packed rows.
        n_inputs : int
            Codes in a row, which the bytes alone do not tell.

        Returns
        -------
        ndarray, (O, I), uint8
            Codes, one in each byte.
        """
        return unpack_bits(codes_OP, self.bits, n_inputs)

    def spread(self, scales_OJ: np.ndarray, n_inputs: int) -> np.ndarray:
        """Repeat each group's number for all its inputs.

        Parameters
        ----------
        scales_OJ : ndarray, (O, J)
            Scales or zeros.
        n_inputs : int
            Columns of the matrix.

        Returns
        -------
        ndarray, (O, I), or (O, 1) where a group is a row
            What broadcasts against the matrix.
        """
        return np.repeat(scales_OJ, self.group, axis=1)[:, :n_inputs] if self.group else scales_OJ

    def stored(self, scales_OJ: np.ndarray) -> np.ndarray:
        """Round scales to the nearest numbers that are stored.

        Parameters
        ----------
        scales_OJ : ndarray, (O, J)
            Scales of any precision, such as trained ones.

        Returns
        -------
        ndarray, (O, J), float16 or float32
            The same array if it is already of that dtype.

        Raises
        ------
        DataError
            Code ``scale_overflow``.
        """
        if (strange := np.abs(scales_OJ) > self._largest_scale).any():
            raise DataError(
                "scale_overflow",
                f"{self.name} stores scales up to {self._largest_scale:g}; {np.argwhere(strange)[0].tolist()} (output, "
                f"group) needs {scales_OJ[strange][0]:g}. Look for an outlier there, or scale the layer down",
            )
        return scales_OJ.astype(self.scale_dtype, copy=False)

    @property
    def _largest_scale(self) -> float:
        """Beyond it a float16 scale, or 255 float32 steps, would be infinite."""
        return 65504.0 if self.group else 2.0**119

    def _stored_up(self, scales_OJ: np.ndarray) -> np.ndarray:
        """Round float64 scales up to what is stored, so that nothing is clipped and nothing but zero becomes zero."""
        stored_OJ = self.stored(scales_OJ)
        up_OJ = stored_OJ.copy()
        np.nextafter(stored_OJ, self.scale_dtype.type(np.inf), out=up_OJ, where=stored_OJ < scales_OJ)
        return up_OJ

    def _mean_magnitudes(self, w_OI: np.ndarray) -> np.ndarray:
        """Return the mean of each group's magnitudes as float64."""
        _check_finite(w_OI)
        n_inputs = w_OI.shape[1]
        if not n_inputs:
            return np.zeros((len(w_OI), self.n_groups(0)))
        starts_J = np.arange(0, n_inputs, self.group or n_inputs)
        sums_OJ = np.add.reduceat(np.abs(w_OI, dtype=np.float64), starts_J, axis=1)
        means_OJ: np.ndarray = sums_OJ / np.diff(starts_J, append=n_inputs)
        return means_OJ

    def _extremes(self, w_OI: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the largest and smallest weight of each group as float64, zero being counted among them."""
        n_outputs, n_inputs = w_OI.shape
        _check_finite(w_OI)
        if not n_inputs:
            return (np.zeros((n_outputs, self.n_groups(0))),) * 2
        starts_J = np.arange(0, n_inputs, self.group or n_inputs)
        high_OJ = np.maximum.reduceat(w_OI, starts_J, axis=1).astype(np.float64)
        low_OJ = np.minimum.reduceat(w_OI, starts_J, axis=1).astype(np.float64)
        return np.maximum(high_OJ, 0.0), np.minimum(low_OJ, 0.0)


KINDS: dict[str, tuple[int, bool, tuple[int, ...] | None]] = {
    **{f"int{bits}": (bits, True, None) for bits in BITS},
    **{f"uint{bits}": (bits, False, None) for bits in BITS},
    "ternary": (2, True, TERNARY),
    "nf4": (4, True, NF4),
}
"""Bits, whether symmetric, and levels, by the first part of a format's name."""

FORMATS: dict[str, Format] = {
    format.name: format
    for kind, (bits, symmetric, levels) in KINDS.items()
    for group in GROUPS
    for format in [Format(f"{kind}-{group}" if group else kind, bits, group, symmetric, levels)]
}


def format_named(name: str) -> Format:
    """Look a format up.

    Parameters
    ----------
    name : str
        Such as ``"int8"`` (symmetric, one scale a row), ``"int4-32"`` (groups of 32), ``"uint4-64"`` (asymmetric),
        ``"ternary"`` or ``"nf4-64"``.

    Returns
    -------
    Format
        The row of `FORMATS`.

    Raises
    ------
    UnsupportedError
        Code ``unknown_format``.
    """
    if name not in FORMATS:
        raise unknown("format", name, FORMATS)
    return FORMATS[name]


def _steps(w: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Divide; nothing divided by a zero scale is nothing, something is infinitely many steps."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        steps: np.ndarray = w / scales
    steps[np.isnan(steps)] = 0.0
    return steps


def _check_finite(w_OI: np.ndarray) -> None:
    if not np.isfinite(w_OI).all():
        place = np.argwhere(~np.isfinite(w_OI))[0]
        raise DataError(
            "non_finite_weight",
            f"only finite weights can be quantized; that at {place.tolist()} (output, input) is {w_OI[tuple(place)]}. "
            "Go back to a checkpoint from before training diverged",
        )
