"""Distil: a student trained to be like its teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from minislm.compression.base import Method, Report, need, needed, whole_model
from minislm.compression.distillation import Distillation
from minislm.compression.fitting import trained
from minislm.compression.layer_map import MAPS, attention_pairs, block_pairs, last_pairs
from minislm.compression.student import SIZES, Student, every_other_layer, fresh_projection, resized, same_answers
from minislm.compression.targets import AttentionTarget, HiddenTarget, Target
from minislm.errors import listed
from minislm.training.settings import TrainSettings

if TYPE_CHECKING:
    from minislm.training.data import TrainingData

STUDENTS = ("every_other", "scratch", "itself")


@dataclass(frozen=True)
class Distil(Method):
    """Train a student on its teacher's answers, on the text itself, and on what lies inside the teacher.

    The teacher is `original` where one is given, and otherwise the model before this step.

    Parameters
    ----------
    training : TrainSettings
        How to train the student.
    student : {"every_other", "scratch", "itself"}
        A model of every other layer of the teacher, its first included, with the teacher's numbers; a new one; or the
        model before this step as it stands, whatever its storage.
    sizes : mapping of str to int, optional
        Sizes of a student from scratch, any of ``n_layers, n_encoder_layers, d_model, n_heads, n_kv_heads, d_ff``; what
        is missing is as in the teacher, d_ff in proportion to d_model.
    temperature : float
        Softens both distributions; at least 1 as a rule.
    hard_weight : float
        Weight of what the text itself asks for, [0, 1]; the teacher's answers have the rest. 1 and no other weight
        trains the same student alone.
    hidden_weight : float
        Weight of the mean squared difference of the hidden states that paired blocks return.
    attention_weight : float
        Weight of the divergence of the attention maps of paired blocks, which must have equally many heads.
    cosine_weight : float
        Weight of the mean cosine distance of the hidden states that the last blocks return.
    layers : {"uniform", "last"} or mapping of str to str
        Which block is paired with which of the teacher's, as for `minislm.compression.layer_map.block_pairs`: evenly
        spread, with the last ones, or by paths, such as ``{"blocks.0": "blocks.2"}``.
    seed : int
        A student from scratch, and projections, begin as a function of it.

    Notes
    -----
    The loss is ``h hard + (1 - h) T^2 KL(q(T) || p(T)) + a MSE(W x, y) + b KL(A || B) + c (1 - cos(W x, y))``: p(T) and
    q(T) are the softmax of the student's and the teacher's logits over the temperature T, h is `hard_weight`, x and B
    are hidden states and attention maps of the student, y and A those of the teacher. The factor T^2 keeps the second
    gradient at the size of the first, whatever the temperature. Losses of several pairs are averaged, those of an
    encoder's heads are summed. Where widths differ, a projection W for each pair is trained along and dropped in the
    end [3]_. A step costs one forward pass of the teacher more than training alone; losses are summed in float64.

    DistilBERT's triple loss [2]_, whose published weights are 5 : 2 : 1 of soft, hard and cosine, is
    ``student="every_other", temperature=2, hard_weight=2 / 7, cosine_weight=1 / 7`` on an encoder with a masked head:
    all weights are divided by 7, of which AdamW takes no notice. TinyBERT's [4]_ is ``hidden_weight=1,
    attention_weight=1``, there with the squared difference of the scores that the maps are the softmax of.

    References
    ----------
    .. [1] Hinton, Vinyals, Dean (2015), "Distilling the knowledge in a neural network", arXiv 1503.02531, section 2.
    .. [2] Sanh, Debut, Chaumond, Wolf (2019), "DistilBERT", arXiv 1910.01108, section 3: a student of every other
       layer, and the triple loss.
    .. [3] Romero et al. (2014), "FitNets", arXiv 1412.6550, equation 3: hidden states through a trained projection.
    .. [4] Jiao et al. (2019), "TinyBERT", arXiv 1909.10351, equations 7 and 8.
    .. [5] Wang et al. (2020), "MiniLM", arXiv 2002.10957, section 3.1: the divergence of attention maps.

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
    hidden_weight: float = 0.0
    attention_weight: float = 0.0
    cosine_weight: float = 0.0
    layers: str | Mapping[str, str] = "uniform"
    seed: int = 0

    def check(self) -> None:
        """Raise UsageError where an option is out of range, and where two contradict each other."""
        need(self.student in STUDENTS, self, f"student must be {listed(STUDENTS)}, not {self.student!r}")
        need(self.temperature > 0, self, f"temperature must be more than 0, not {self.temperature}")
        need(0 <= self.hard_weight <= 1, self, f"hard_weight must lie in [0, 1], not {self.hard_weight}")
        for option in ("hidden_weight", "attention_weight", "cosine_weight"):
            need(0 <= getattr(self, option) < float("inf"), self, f"{option} must be at least 0")
        need(
            (self.sizes is not None) == (self.student == "scratch"),
            self,
            "sizes go with student='scratch', and only with it",
            "contradicting_options",
        )
        for size in self.sizes or ():
            need(size in SIZES, self, f"sizes may name {', '.join(SIZES)}, not {size!r}")
        need(
            self.layers in MAPS or isinstance(self.layers, Mapping),
            self,
            f"layers must be {listed(MAPS)} or a mapping of blocks, not {self.layers!r}",
        )
        need(
            self.layers == "uniform" or self.hidden_weight > 0 or self.attention_weight > 0,
            self,
            "layers pairs the blocks for hidden_weight and attention_weight; both are 0",
            "contradicting_options",
        )

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
        student = self.foresee(model, where=where, original=original)
        teacher = model if original is None else original
        data = needed(self, data)
        data.train.check(teacher)
        targets = self.targets(student, teacher)
        n_projections = sum(isinstance(target, HiddenTarget) and target.projection is not None for target in targets)
        widths = teacher.config.d_model, student.config.d_model
        projections = tuple(fresh_projection(i, *widths, self.seed) for i in range(n_projections))
        objective = Distillation(teacher, self.temperature, self.hard_weight, data.objective, targets)
        learner = Student("", student, projections) if projections else student
        learnt = trained(self, learner, data, self.training, report=report, directory=directory, objective=objective)
        return learnt.model if projections else learnt

    def foresee(self, model: Any, *, where: str = "*", original: Any = None) -> Any:
        """Return the student before it learns, after a check that it can learn from its teacher."""
        whole_model(self, where)
        teacher = model if original is None else original
        same_answers(model, teacher)
        if self.student == "every_other":
            student = every_other_layer(teacher)
        elif self.student == "scratch":
            student = type(teacher).create(resized(teacher.config, self.sizes or {}), self.seed)
        else:
            student = model
        self.targets(student, teacher)
        return student

    def targets(self, student: Any, teacher: Any) -> tuple[Target, ...]:
        """Say what the student learns from inside the teacher.

        Parameters
        ----------
        student, teacher : Model
            Of one architecture.

        Returns
        -------
        tuple of Target
            Those with a weight.

        Raises
        ------
        UsageError, UnsupportedError
            As `block_pairs` and `attention_pairs`.
        """
        blocks = block_pairs(student, teacher, self.layers)
        targets: list[Target] = []
        for op, weight, pairs in (
            ("mean_square", self.hidden_weight, blocks),
            ("cosine_distance", self.cosine_weight, last_pairs(student, teacher)),
        ):
            for pair in pairs if weight else ():
                projection = None if student.config.d_model == teacher.config.d_model else len(targets)
                targets.append(HiddenTarget(pair, weight / len(pairs), op, projection))
        if self.attention_weight:
            attentions = attention_pairs(student, teacher, blocks)
            targets += [AttentionTarget(pair, self.attention_weight / len(attentions)) for pair in attentions]
        return tuple(targets)
