"""Train: the model trained further as it stands; also the control that fine-tuned models are judged against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from minislm.compression.base import Method, Report, whole_model
from minislm.compression.fitting import trained
from minislm.training.settings import TrainSettings

if TYPE_CHECKING:
    from minislm.training.data import TrainingData


@dataclass(frozen=True)
class Train(Method):
    """Train everything in the model that has gradients, keeping every Weight's storage.

    Zeros of sparse weights stay zeros, codes of quantized weights stay as they are, factors stay factors.

    Parameters
    ----------
    training : TrainSettings
        How to train.

    Notes
    -----
    The objective is that of the examples: the next token, or the tasks that an encoder's heads are for.

    Examples
    --------
    >>> Train(TrainSettings()).name
    'train'
    """

    name: ClassVar[str] = "train"

    training: TrainSettings

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
        """Return the model trained further; see `Method.run`."""
        self.foresee(model, where=where)
        return trained(self, model, data, self.training, report=report, directory=directory)

    def foresee(self, model: Any, *, where: str = "*", original: Any = None) -> Any:
        """Return the model, after a check that no pattern is given."""
        whole_model(self, where)
        return model
