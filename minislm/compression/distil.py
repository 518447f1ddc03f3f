"""Distil: a student trained to predict what its teacher predicts."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from minislm.compression.base import Method, Report, need, whole_model
from minislm.compression.fitting import trained
from minislm.config import Config, LayerSizes
from minislm.dispatch import ops
from minislm.errors import UnsupportedError, UsageError
from minislm.layers.base import Context, Grads, Tape
from minislm.training.objective import NOT_JUDGED, NextToken, Objective
from minislm.training.settings import TrainSettings

if TYPE_CHECKING:
    from minislm.training.data import Batch, TrainingData

STUDENTS = ("every_other", "scratch", "itself")
SIZES = ("n_layers", "d_model", "n_heads", "n_kv_heads", "d_ff")


@dataclass(frozen=True)
class Distil(Method):
    """Train a student on its teacher's probabilities and on the text itself.

    The teacher is `original` where one is given, and otherwise the model before this step.

    Parameters
    ----------
    training : TrainSettings
        How to train the student.
    student : {"every_other", "scratch", "itself"}
        A model of every other layer of the teacher, its first included, with the teacher's numbers; a new one; or the
        model before this step as it stands, whatever its storage.
    sizes : mapping of str to int, optional
        Sizes of a student from scratch, any of ``n_layers, d_model, n_heads, n_kv_heads, d_ff``; what is missing is as
        in the teacher, d_ff in proportion to d_model.
    temperature : float
        Softens both distributions; at least 1 as a rule.
    hard_weight : float
        Weight of the text's own next token, [0, 1]; the teacher has the rest. 1 trains the same student alone.
    seed : int
        A student from scratch begins as a function of it.

    Notes
    -----
    The loss is ``h CE(y, p(1)) + (1 - h) T^2 KL(q(T) || p(T))``, where p(T) and q(T) are the softmax of the student's
    and the teacher's logits over the temperature T, and h is `hard_weight`. The factor T^2 keeps the second gradient at
    the size of the first, whatever the temperature. A step costs one forward pass of the teacher more than training
    alone; losses are summed in float64.

    References
    ----------
    .. [1] Hinton, Vinyals, Dean (2015), "Distilling the knowledge in a neural network", arXiv 1503.02531, section 2.
    .. [2] Sanh, Debut, Chaumond, Wolf (2019), "DistilBERT", arXiv 1910.01108: a student of every other layer.

    Examples
    --------
    >>> Distil(TrainSettings(), student="scratch", sizes={"n_layers": 2}).hard_weight
    0.1
    """

    name: ClassVar[str] = "distil"

    training: TrainSettings
    student: str = "every_other"
    sizes: Mapping[str, int] | None = None
    temperature: float = 2.0
    hard_weight: float = 0.1
    seed: int = 0

    def check(self) -> None:
        """Raise UsageError where an option is out of range, and where two contradict each other."""
        need(self.student in STUDENTS, self, f"student must be one of {STUDENTS}, not {self.student!r}")
        need(self.temperature > 0, self, f"temperature must be more than 0, not {self.temperature}")
        need(0 <= self.hard_weight <= 1, self, f"hard_weight must lie in [0, 1], not {self.hard_weight}")
        need(
            (self.sizes is not None) == (self.student == "scratch"),
            self,
            "sizes go with student='scratch', and only with it",
            "contradicting_options",
        )
        for size in self.sizes or ():
            need(size in SIZES, self, f"sizes may name {', '.join(SIZES)}, not {size!r}")

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
        """Return the trained student; see `Method.run`."""
        whole_model(self, where)
        teacher = model if original is None else original
        same_vocabulary(model, teacher)
        if self.student == "every_other":
            student = every_other_layer(teacher)
        elif self.student == "scratch":
            student = type(teacher).create(resized(teacher.config, self.sizes or {}), self.seed)
        else:
            student = model
        objective = Distillation(teacher, self.temperature, self.hard_weight)
        return trained(self, student, data, self.training, report=report, directory=directory, objective=objective)


@dataclass(frozen=True)
class Distillation(Objective):
    """The objective: soft targets of a teacher, and hard ones of the text.

    Parameters
    ----------
    teacher : Model
        Never trained, run without dropout.
    temperature : float
        Softens both distributions.
    hard_weight : float
        Weight of the text's own next token.
    """

    teacher: Any
    temperature: float
    hard_weight: float
    teacher_sha256: str = dataclasses.field(init=False)  # so that a run resumes under its own teacher only

    def __post_init__(self) -> None:
        digest = hashlib.sha256()
        for name, array in self.teacher.arrays().items():
            digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
        object.__setattr__(self, "teacher_sha256", digest.hexdigest())

    def loss(self, model: Any, batch: Batch, context: Context, tape: Tape, grads: Grads) -> tuple[float, Any]:
        """Run the student forward, and its teacher beside it."""
        logits = model.forward(batch.ids_BT, context, tape)
        logits_NV = logits.reshape(-1, logits.shape[-1])
        targets_N = np.reshape(batch.targets_BT, -1)
        loss, saved = ops.cross_entropy(logits_NV, targets_N, ignore=NOT_JUDGED)
        dlogits_NV = ops.cross_entropy_backward(self.hard_weight, saved)
        loss *= self.hard_weight
        if self.hard_weight < 1:
            teacher_NV = self.teacher.forward(batch.ids_BT, batch.context()).reshape(logits_NV.shape)
            keep_N = targets_N != NOT_JUDGED
            soft, saved = ops.kl_divergence(logits_NV, teacher_NV, temperature=self.temperature, keep_N=keep_N)
            loss += (1.0 - self.hard_weight) * soft
            dlogits_NV += ops.kl_divergence_backward(1.0 - self.hard_weight, saved)
        return loss, dlogits_NV.reshape(logits.shape)

    def judge(self, model: Any, batches: Iterable[Batch]) -> float:
        """Return the student's own mean loss of a token."""
        return NextToken().judge(model, batches)


def same_vocabulary(model: Any, teacher: Any) -> None:
    """Refuse a teacher whose logits mean other tokens, as far as sizes tell.

    Parameters
    ----------
    model : Model
        Its tokens are the student's.
    teacher : Model
        To be compared with it.

    Raises
    ------
    UnsupportedError
        Code ``vocabulary_differs``.
    """
    if model.config.vocab_size != teacher.config.vocab_size:
        raise UnsupportedError(
            "vocabulary_differs",
            f"the model's vocabulary has {model.config.vocab_size} tokens, the teacher's {teacher.config.vocab_size}; "
            "distillation compares probabilities token by token, so take a teacher with the same tokenizer",
        )


def every_other_layer(teacher: Any) -> Any:
    """Return a model of the teacher's blocks 0, 2, 4 and so on.

    Parameters
    ----------
    teacher : Model
        Stays as it is.

    Returns
    -------
    Model
        Over the teacher's own numbers.
    """
    config = dataclasses.replace(teacher.config, layers=teacher.config.layers[::2])
    student = type(teacher).create(config)
    parts = dict(teacher.parts())
    return student.replaced({path: parts[_doubled(path)] for path, _ in student.parts()})


def _doubled(path: str) -> str:
    """Return where the teacher has the part at `path`: ``blocks.1.mlp.up.weight`` comes from ``blocks.2.``."""
    first, _, rest = path.partition(".")
    if first != "blocks":
        return path
    number, _, rest = rest.partition(".")
    return f"blocks.{2 * int(number)}.{rest}"


def resized(config: Config, sizes: Mapping[str, int]) -> Config:
    """Return a Config with other sizes and the same choices.

    Parameters
    ----------
    config : Config
        The teacher's.
    sizes : mapping of str to int
        Any of ``n_layers, d_model, n_heads, n_kv_heads, d_ff``.

    Returns
    -------
    Config
        All its blocks of one size.

    Raises
    ------
    UsageError
        Code ``bad_option``: the width is no multiple of the number of heads.
    """
    first = config.layers[0]
    d_model = sizes.get("d_model", config.d_model)
    n_heads = sizes.get("n_heads", first.n_heads)
    if n_heads < 1 or d_model % n_heads:
        raise UsageError("bad_option", f"distil: d_model ({d_model}) must be a multiple of n_heads ({n_heads})")
    layer = LayerSizes(
        n_heads=n_heads,
        n_kv_heads=sizes.get("n_kv_heads", n_heads if "n_heads" in sizes else first.n_kv_heads),
        d_head=d_model // n_heads,
        d_ff=sizes.get("d_ff", first.d_ff * d_model // config.d_model),
    )
    n_layers = sizes.get("n_layers", config.n_layers)
    return dataclasses.replace(config, d_model=d_model, layers=(layer,) * n_layers)
