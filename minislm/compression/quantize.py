"""Quantize: every weight rounded to the nearest value of a storage format, after training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from minislm.compression.base import Method, Report, need
from minislm.compression.parts import chosen, dense_matrix, leaves, with_leaves
from minislm.errors import unknown
from minislm.ops.formats import format_named
from minislm.weights.base import Weight
from minislm.weights.quantized import ACTIVATIONS, Quantized
from minislm.weights.sparse import Sparse

if TYPE_CHECKING:
    from minislm.training.data import TrainingData


@dataclass(frozen=True)
class Quantize(Method):
    """Store weights as small whole numbers and their scales, each rounded to nearest.

    Parameters
    ----------
    format : str
        A storage format of `minislm.ops.formats`, such as ``"int8"``, ``"int4-32"`` or ``"uint4-64"``.
    activations : {"float", "int8-row", "int8-32"}
        How inputs enter the product: as they are, or rounded to signed bytes with one scale for each row or for every
        32 inputs.

    Notes
    -----
    The scale of a group is the smallest with which no weight is clipped, so every weight moves by at most half a step:
    ``|w - s (c - z)| <= s / 2``. Both factors of a product are quantized, and of a sparse weight the stored values. No
    data is needed. The cost is a few operations for each weight.

    References
    ----------
    .. [1] Jacob et al. (2017), "Quantization and training of neural networks for efficient integer-arithmetic-only
       inference", arXiv 1712.05877, equation 1.

    Examples
    --------
    >>> Quantize("int8").to_json()
    {'method': 'quantize', 'format': 'int8', 'activations': 'float'}
    """

    name: ClassVar[str] = "quantize"

    format: str = "int4-32"
    activations: str = "float"

    def check(self) -> None:
        """Raise UnsupportedError where a name is unknown."""
        format_named(self.format)
        if self.activations not in ACTIVATIONS:
            raise unknown("activations", self.activations, ACTIVATIONS)

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
        return model.replaced(
            {
                path: with_leaves(weight, iter([self._rounded(path, leaf) for leaf in leaves(weight)]))
                for path, weight in chosen(model, where).items()
            }
        )

    def _rounded(self, path: str, leaf: Weight) -> Weight:
        """Return one leaf in the format; a sparse one keeps its zeros."""
        if not isinstance(leaf, Sparse):
            return Quantized.nearest(dense_matrix(self, path, leaf), self.format, self.activations)
        need(
            self.activations == "float",
            self,
            f"{path} is sparse, and sparse products take float activations; leave `activations` out there",
            "contradicting_options",
        )
        values = Quantized.nearest(dense_matrix(self, path, leaf.values), self.format)
        return dataclasses.replace(leaf, values=values)
