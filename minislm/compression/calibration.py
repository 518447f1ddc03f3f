"""Scales of static activations: what enters each product is watched on data, and its magnitudes are counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from minislm.compression.base import need, needed
from minislm.compression.parts import leaf_inputs, leaves
from minislm.errors import DataError, listed
from minislm.layers.base import Tape
from minislm.weights.base import Weight

if TYPE_CHECKING:
    from minislm.compression.qat import QuantizationAware
    from minislm.compression.quantize import Quantize
    from minislm.training.data import TrainingData

    Calibrating: TypeAlias = Quantize | QuantizationAware

CALIBRATIONS = ("minmax", "percentile", "mse")
PERCENTILE, SAMPLES = 99.99, 64  # where a method leaves them open

_BITS = 16  # of a float32 that a bin leaves out; 15 are left: the exponent's 8 and the mantissa's first 7
_N_BINS = 0x7F800000 >> _BITS  # up to infinity
_STEPS = 127  # of the scale, in each direction


class Magnitudes:
    """How often each magnitude occurred, counted in bins of numbers that share exponent and first bits.

    A bin's width is at most 1/128 of its numbers, whatever their range: nothing has to be known before the first of
    them comes, an outlier makes nothing coarser, and their order changes nothing. It takes 255 KiB.

    Parameters
    ----------
    name : str
        Of the Weight that multiplies them, for messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts_Z = np.zeros(_N_BINS, np.int64)
        self.largest = 0.0

    def add(self, x: np.ndarray) -> None:
        """Count the magnitudes of an array.

        Parameters
        ----------
        x : ndarray of float32 or float64
            Activations.

        Raises
        ------
        DataError
            Code ``non_finite_activation``.
        """
        sizes = np.abs(x.astype(np.float32, copy=False)).ravel()
        largest = float(sizes.max(initial=0.0))
        if not largest < np.inf:
            raise DataError(
                "non_finite_activation",
                f"what enters {self.name} holds numbers that are not finite on the data to calibrate on. "
                "Look for the first layer where they appear with `minislm.trace`, or go back to a checkpoint before it",
            )
        self.largest = max(self.largest, largest)
        self.counts_Z += np.bincount(sizes.view(np.uint32) >> _BITS, minlength=_N_BINS)

    def scale(self, calibration: str, percentile: float = PERCENTILE) -> np.ndarray:
        """Choose the scale of signed bytes.

        Parameters
        ----------
        calibration : {"minmax", "percentile", "mse"}
            How; see `Quantize`.
        percentile : float
            For ``"percentile"``: how many of 100 magnitudes that are not zero are not clipped.

        Returns
        -------
        ndarray, (1,), float32
            0 where nothing but zeros occurred.
        """
        reach = self.largest
        if calibration == "percentile":
            reach = self._below(percentile / 100)
        elif calibration == "mse":
            reach = min(self._candidates(), key=self.error)
        return np.array([reach / _STEPS], np.float32)

    def error(self, reach: float) -> float:
        """Estimate what rounding and clipping cost.

        Parameters
        ----------
        reach : float
            127 steps.

        Returns
        -------
        float
            Sum of the squared differences, under the assumption that numbers are spread evenly within a bin.

        Notes
        -----
        With u in steps and k(u) the nearest whole number up to 127, the integral of ``(u - k(u))^2`` from 0 is
        ``k / 12 + (u - k)^3 / 3``: each whole step before contributes 1/12.
        """
        used = np.flatnonzero(self.counts_Z)
        step = reach / _STEPS
        if not step:
            return float("inf") if self.largest else 0.0
        integrals = []
        for edges_Z in (_EDGES[used], _EDGES[used + 1]):
            steps_Z = edges_Z / step
            nearest_Z = np.minimum(np.rint(steps_Z), _STEPS)
            integrals.append(nearest_Z / 12 + (steps_Z - nearest_Z) ** 3 / 3)
        widths_Z = (_EDGES[used + 1] - _EDGES[used]) / step
        return float(step**2 * (self.counts_Z[used] * (integrals[1] - integrals[0]) / widths_Z).sum())

    def _below(self, share: float) -> float:
        """Return a magnitude that the given share of those that are not zero does not exceed."""
        total_Z = np.cumsum(self.counts_Z[1:])  # bin 0 holds zeros, and what counts as zero
        if not total_Z[-1]:
            return self.largest
        return min(self.largest, float(_EDGES[2 + int(np.searchsorted(total_Z, share * total_Z[-1]))]))

    def _candidates(self) -> list[float]:
        """Return magnitudes between the median and the largest, 16 for each doubling, that one first."""
        low, high = np.searchsorted(_EDGES, [self._below(0.5), self.largest])
        return [self.largest, *_EDGES[low:high:8].tolist()]


_EDGES = (np.arange(_N_BINS + 1, dtype=np.uint32) << _BITS).view(np.float32).astype(np.float64)
_EDGES[-1] = 2.0**128


def check_calibration(method: Calibrating) -> None:
    """Refuse options of calibration that are out of range, or given where activations are not static.

    Parameters
    ----------
    method : Quantize or QuantizationAware
        Whose options are meant.

    Raises
    ------
    UsageError
        Code ``contradicting_options`` or ``bad_option``.
    """
    need(
        (method.calibration is not None) == (method.activations == "static"),
        method,
        f"calibration goes with activations='static', and only with it; they are {method.calibration!r} and "
        f"{method.activations!r}",
        "contradicting_options",
    )
    need(
        method.calibration in (None, *CALIBRATIONS),
        method,
        f"calibration must be {listed(CALIBRATIONS)}, not {method.calibration!r}",
    )
    need(
        method.percentile is None or method.calibration == "percentile",
        method,
        f"percentile goes with calibration='percentile', which is {method.calibration!r}",
        "contradicting_options",
    )
    need(
        method.samples is None or method.calibration is not None,
        method,
        "samples are what a static scale is found on; activations are not static",
        "contradicting_options",
    )
    need(
        method.percentile is None or 50 <= method.percentile <= 100,
        method,
        f"percentile must lie in [50, 100], not {method.percentile}",
    )
    need(method.samples is None or method.samples >= 1, method, f"samples must be at least 1, not {method.samples}")


def activation_scales(
    method: Calibrating, model: Any, data: TrainingData | None, weights: Mapping[str, Weight]
) -> dict[str, list[np.ndarray | None]]:
    """Find a scale for what enters each leaf of some Weights, as a method's options say.

    Parameters
    ----------
    method : Quantize or QuantizationAware
        Whose options are meant.
    model : Model
        Run forward, one example at a time, so that no padding is among the activations.
    data : TrainingData or None
        Its examples to learn from are taken, spread evenly.
    weights : mapping of str to Weight
        By full path; of `model`.

    Returns
    -------
    dict of str to list
        For each leaf, (1,) float32, or None where activations are not static or nothing was multiplied, as with a
        table that is only looked up.

    Raises
    ------
    UsageError
        Code ``data_missing``.
    DataError
        Code ``non_finite_activation``.
    """
    if method.calibration is None:
        return {path: [None] * len(leaves(weight)) for path, weight in weights.items()}
    found = _counted(model, needed(method, data), weights, SAMPLES if method.samples is None else method.samples)
    percentile = PERCENTILE if method.percentile is None else method.percentile
    return {
        path: [m.scale(method.calibration, percentile) if m.counts_Z.any() else None for m in magnitudes]
        for path, magnitudes in found.items()
    }


def entering(activations: str, scale: np.ndarray | None) -> str:
    """Return how activations enter one leaf.

    Parameters
    ----------
    activations : str
        What was asked for.
    scale : ndarray or None
        What `activation_scales` found for the leaf.

    Returns
    -------
    str
        ``"float"`` where static activations were asked for and nothing was multiplied.
    """
    return "float" if activations == "static" and scale is None else activations


def _counted(
    model: Any, data: TrainingData, weights: Mapping[str, Weight], samples: int
) -> dict[str, list[Magnitudes]]:
    """Run examples and count what enters the leaves of each Weight."""
    data.train.check(model)
    found = {path: [Magnitudes(path) for _ in leaves(weight)] for path, weight in weights.items()}
    names = {path: (layer, f"{layer}.logits") for path in weights for layer in [path.rpartition(".")[0]]}
    watched = [name for pair in names.values() for name in pair]
    for batch in data.train.evaluation(1, samples):
        tape = Tape(watched, saving=False)
        model.forward(batch.ids_BT, batch.context(), tape)
        for path, weight in weights.items():
            for seen in (tape.seen.get(name) for name in names[path]):
                if isinstance(seen, np.ndarray) and seen.dtype.kind == "f":  # not the ids of a lookup
                    for magnitudes, x_NI in zip(found[path], leaf_inputs(weight, seen), strict=True):
                        magnitudes.add(x_NI)
    return found
