"""Training as Methods do it: every Weight that can be trained is, and keeps its storage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from minislm.compression.base import Method, Report, needed
from minislm.compression.sparsity import frozen_as, thawed
from minislm.training.loop import fit
from minislm.training.settings import TrainSettings

if TYPE_CHECKING:
    from minislm.training.data import TrainingData


def trained(
    method: Method,
    model: Any,
    data: TrainingData | None,
    settings: TrainSettings,
    *,
    report: Report | None,
    directory: Path | None,
    **options: Any,
) -> Any:
    """Train a model further: `fit`, for Methods. The values of sparse weights are trained too, their zeros stay zeros.

    Parameters
    ----------
    method : Method
        Named when data is missing.
    model : Model
        Where training starts.
    data : TrainingData or None
        To train on.
    settings : TrainSettings
        How.
    report : callable or None
        Called with each record of training.
    directory : Path or None
        Of checkpoints.
    **options
        Of `fit`: objective, rewrite.

    Returns
    -------
    Model
        The trained one, its Weights stored as they were.

    Raises
    ------
    UsageError
        Code ``data_missing``.
    """
    result = fit(thawed(model), needed(method, data), settings, report=report, directory=directory, **options)
    return frozen_as(result.model, model)
