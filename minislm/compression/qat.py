"""QuantizationAware: trained as if already quantized, then quantized to the same values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from minislm.compression.base import Method, Report
from minislm.compression.calibration import activation_scales, check_calibration, entering
from minislm.compression.fitting import trained
from minislm.compression.parts import chosen, dense_matrix, leaves, with_leaves
from minislm.compression.scales import least_squares
from minislm.errors import UnsupportedError, unknown
from minislm.ops.formats import format_named
from minislm.training.settings import TrainSettings
from minislm.weights.base import Weight
from minislm.weights.fake_quantized import FakeQuantized
from minislm.weights.quantized import CHOICES

if TYPE_CHECKING:
    from minislm.training.data import TrainingData


@dataclass(frozen=True)
class QuantizationAware(Method):
    """Train on with weights rounded in every forward pass, and store them so in the end.

    Parameters
    ----------
    format : str
        A symmetric storage format, such as ``"int3"``, ``"int4-32"`` or ``"ternary"``.
    activations : {"int8", "float", "int8-row", "int8-32", "static"}
        How inputs enter the product in the end, as for `Quantize`; training sees unrounded ones.
    training : TrainSettings
        How to train.
    lsq : bool, optional
        Whether scales are learned too. False: they stay as they begin. None: as is best, which is to learn them unless
        levels are unevenly spaced. Those of NF4 are so close around zero that a scale is 1/127 of the largest weight: a
        step of the optimizer would be a large part of it.
    calibration, percentile, samples : optional
        As for `Quantize`: how the scales of static activations are found, after training.

    Notes
    -----
    Forward computes with ``s round(clip(w / s, -Qn, Qp))``, the very function that storage uses, scales rounded to the
    stored dtype included, so that nothing changes when training ends: the stored values equal the trained ones bit for
    bit. Backward takes rounding for the identity and lets no gradient through where a weight is clipped; the scale's
    gradient is LSQ's. Scales begin where `Quantize` with ``scales="mse"`` puts them. A step costs about 15
    operations for each weight more than training without rounding.

    References
    ----------
    .. [1] Esser et al. (2019), "Learned step size quantization", arXiv 1902.08153, equations 1 to 5.
    .. [2] Bengio, Léonard, Courville (2013), "Estimating or propagating gradients through stochastic neurons",
       arXiv 1308.3432: the straight-through estimator.

    Examples
    --------
    >>> QuantizationAware("int3", training=TrainSettings(steps=100)).learns_scales
    True
    >>> QuantizationAware("nf4-64", training=TrainSettings(steps=100)).learns_scales
    False
    """

    name: ClassVar[str] = "quantization_aware"

    format: str = "int3"
    activations: str = "int8"
    training: TrainSettings = field(default_factory=TrainSettings)
    lsq: bool | None = None
    calibration: str | None = None
    percentile: float | None = None
    samples: int | None = None

    def check(self) -> None:
        """Raise an error where a name is unknown, the format is asymmetric, or options contradict each other."""
        storage = format_named(self.format)
        if not storage.symmetric:
            raise UnsupportedError(
                "asymmetric_training",
                f"{self.name}: {storage} stores a zero for each group, and only scales can be learned; "
                f"take a symmetric format such as {storage.name.removeprefix('u')}",
            )
        if self.activations not in CHOICES:
            raise unknown("activations", self.activations, CHOICES)
        check_calibration(self)

    @property
    def learns_scales(self) -> bool:
        """Whether scales are learned."""
        return format_named(self.format).table is None if self.lsq is None else self.lsq

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
        paths = tuple(chosen(model, where))
        model = self.simulated(model, paths)
        freeze = [] if self.learns_scales else [name for name in model.parameters() if name.endswith(".scales")]
        settings = dataclasses.replace(self.training, freeze=",".join([*filter(None, [self.training.freeze]), *freeze]))
        model = trained(self, model, data, settings, report=report, directory=directory)
        scales = activation_scales(self, model, data, {path: model.weights()[path] for path in paths})
        return self.stored(model, paths, scales)

    def simulated(self, model: Any, paths: tuple[str, ...]) -> Any:
        """Let weights act as if they were quantized.

        Parameters
        ----------
        model : Model
            With Dense leaves at `paths`.
        paths : tuple of str
            Of Weights.

        Returns
        -------
        Model
            With FakeQuantized leaves there.
        """
        storage = format_named(self.format)
        new: dict[str, Weight] = {}
        for path in paths:
            weight = model.weights()[path]
            matrices = [dense_matrix(self, path, leaf) for leaf in leaves(weight)]
            new[path] = with_leaves(
                weight,
                iter(
                    [
                        FakeQuantized(w_OI, storage, least_squares(storage, w_OI)[0].astype(np.float32))
                        for w_OI in matrices
                    ]
                ),
            )
        return model.replaced(new)

    def stored(
        self, model: Any, paths: tuple[str, ...], scales: Mapping[str, list[np.ndarray | None]] | None = None
    ) -> Any:
        """Quantize what `simulated` let act so, to the same values.

        Parameters
        ----------
        model : Model
            With FakeQuantized leaves at `paths`.
        paths : tuple of str
            Of Weights.
        scales : mapping of str to list of ndarray, optional
            Of what enters each leaf of each Weight, as `activation_scales` found it; None: activations are not static.

        Returns
        -------
        Model
            With Quantized leaves there.
        """
        new: dict[str, Weight] = {}
        for path in paths:
            weight = model.weights()[path]
            simulated = [leaf for leaf in leaves(weight) if isinstance(leaf, FakeQuantized)]
            own = scales[path] if scales else [None] * len(simulated)
            new[path] = with_leaves(
                weight,
                iter(
                    [
                        leaf.quantized(entering(self.activations, scale), scale)
                        for leaf, scale in zip(simulated, own, strict=True)
                    ]
                ),
            )
        return model.replaced(new)
