"""Quantize: every weight rounded to the nearest value of a storage format, after training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from minislm.compression.base import Method, Report, need
from minislm.compression.calibration import activation_scales, check_calibration, entering
from minislm.compression.parts import chosen, leaves, stored_matrix, with_leaves
from minislm.compression.scales import least_squares
from minislm.errors import DataError, unknown
from minislm.ops.formats import Format, format_named
from minislm.weights.base import Weight
from minislm.weights.mapped import release
from minislm.weights.quantized import CHOICES, Quantized
from minislm.weights.sparse import Sparse

if TYPE_CHECKING:
    from minislm.training.data import TrainingData

SCALES = {"max": Format.fit, "mse": least_squares}


@dataclass(frozen=True)
class Quantize(Method):
    """Store weights as small whole numbers and their scales, each rounded to nearest.

    Parameters
    ----------
    format : str
        A storage format of `minislm.ops.formats`, such as ``"int8"``, ``"int4-32"``, ``"uint4-64"`` or
        ``"nf4-64"``.
    scales : {"max", "mse"}
        How the scale of a group is chosen: the smallest with which no weight is clipped, or of ternary formats the mean
        of the magnitudes; or, of 25 that include it, the one with the least sum of squared errors: 25 roundings instead
        of one.
    activations : {"int8", "float", "int8-row", "int8-32", "static"}
        How inputs enter the product: rounded to signed bytes, which is fastest by far and costs little beside the
        rounding of the weights; or as they are. Bytes have one scale for each row, for every 32 inputs, or for all of
        them; the last one is found on data, and a table that is only looked up stays without. ``"int8"`` takes every 32
        inputs for formats of groups, the row for others. Of sparse weights only products of n:m round.
    calibration : {"minmax", "percentile", "mse"}, optional
        How a static scale is found, given with it alone: nothing that occurred is clipped; the `percentile` is the
        largest that is not; or the sum of squared errors is least.
    percentile : float, optional
        How many of 100 magnitudes that are not zero are not clipped, [50, 100]; given with its calibration alone. None:
        99.99.
    samples : int, optional
        Examples to calibrate on, at most; None: 64.

    Notes
    -----
    With the smallest scale that clips no weight each moves by half a step at most: ``|w - s (c - z)| <= s / 2``.
    Both factors of a product are quantized, and of a sparse weight the stored values. It takes no data, and a few
    operations for each weight. A search for the least squared error is meant for 4 bits and fewer;
    `tests/benchmarks/bench_retrieval.py` shows what it gains.

    Static scales need one forward pass over the examples. Magnitudes of all that enters a product are counted in a
    histogram whose bins are 1/128 of their numbers wide, of 255 KiB for each product, whatever the data. The error of a
    scale is estimated from it: rounding and clipping of numbers that are spread evenly within each bin, for scales
    between the median and the largest magnitude, 16 for each doubling.

    References
    ----------
    .. [1] Jacob et al. (2017), "Quantization and training of neural networks for efficient integer-arithmetic-only
       inference", arXiv 1712.05877, equation 1.
    .. [2] Wu, Judd, Zhang, Isaev, Micikevicius (2020), "Integer quantization for deep learning inference: principles
       and empirical evaluation", arXiv 2004.09602: calibration by maximum and percentile.
    .. [3] Nagel et al. (2021), "A white paper on neural network quantization", arXiv 2106.08295, section 3.1: by mean
       squared error.

    Examples
    --------
    >>> Quantize("int8", activations="static", calibration="mse").needs_data
    True
    """

    name: ClassVar[str] = "quantize"

    format: str = "int4-32"
    scales: str = "max"
    activations: str = "int8"
    calibration: str | None = None
    percentile: float | None = None
    samples: int | None = None

    def check(self) -> None:
        """Raise UnsupportedError where a name is unknown, UsageError where options are out of range or contradict."""
        format_named(self.format)
        if self.scales not in SCALES:
            raise unknown("scales", self.scales, SCALES)
        if self.activations not in CHOICES:
            raise unknown("activations", self.activations, CHOICES)
        check_calibration(self)

    @property
    def needs_data(self) -> bool:
        """Whether a scale has to be found."""
        return self.calibration is not None

    def run(
        self,
        model: Any,
        data: TrainingData | None = None,
        *,
        where: str = "*",
        original: Any = None,
        report: Report | None = None,
        directory: Path | None = None,
    ) -> Any:
        """Return the model with its chosen weights quantized; see `Method.run`."""
        weights = chosen(model, where)
        scales = activation_scales(self, model, data, weights)
        new: dict[str, Weight] = {}
        for path, weight in weights.items():
            pairs = zip(leaves(weight), scales[path], strict=True)
            new[path] = with_leaves(weight, iter([self._rounded(path, leaf, scale) for leaf, scale in pairs]))
        return model.replaced(new)

    def _rounded(self, path: str, leaf: Weight, scale: np.ndarray | None) -> Weight:
        """Return one leaf in the format; a sparse one keeps its zeros."""
        if not isinstance(leaf, Sparse):
            return self._nearest(path, leaf, entering(self.activations, scale), scale)
        need(
            self.activations in ("int8", "float"),
            self,
            f"{path} is sparse, and its product takes float activations, or rounds as the format asks; leave "
            "`activations` out there",
            "contradicting_options",
        )
        rounded = dataclasses.replace(leaf, values=self._nearest(path, leaf.values, "float"))
        return rounded.with_activations(self.activations)

    def _nearest(self, path: str, leaf: Weight, activations: str, scale: np.ndarray | None = None) -> Quantized:
        """Round the matrix of a Dense, of which no more than a few rows are widened or left in memory at once."""
        w_OI = stored_matrix(self, path, leaf)
        try:
            return Quantized.nearest(w_OI, self.format, activations, scale, SCALES[self.scales])
        except DataError as error:
            raise DataError(error.code, f"{self.name}: {path}: {error}") from error
        finally:
            release(w_OI)
