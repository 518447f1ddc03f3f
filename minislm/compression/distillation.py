"""Distillation: the loss of a student that learns from its teacher and from the text itself."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minislm.compression.targets import Target
from minislm.dispatch import ops
from minislm.layers.base import Context, Grads, Tape
from minislm.training.objective import NOT_JUDGED, NextToken, Objective

if TYPE_CHECKING:
    from minislm.training.data import Batch


@dataclass(frozen=True)
class Distillation(Objective):
    """Soft targets of a teacher, hard ones of the text, and what lies inside the teacher.

    Parameters
    ----------
    teacher : Model
        Never trained, run without dropout.
    temperature : float
        Softens the distributions of student and teacher.
    hard_weight : float
        Weight of `hard`; the teacher's answers have the rest.
    hard : Objective
        What the text asks for: its weights of heads hold for the soft targets too.
    targets : tuple of Target
        Inside the teacher, with their own weights.
    """

    teacher: Any
    temperature: float
    hard_weight: float
    hard: Objective = NextToken()  # noqa: RUF009 (a value)
    targets: tuple[Target, ...] = ()
    teacher_sha256: str = dataclasses.field(init=False)  # so that a run resumes under its own teacher only

    def __post_init__(self) -> None:
        digest = hashlib.sha256()
        for name, array in self.teacher.arrays().items():
            digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
        object.__setattr__(self, "teacher_sha256", digest.hexdigest())

    def loss(self, model: Any, batch: Batch, context: Context, tape: Tape, grads: Grads) -> tuple[float, Any]:
        """Run the student forward, and its teacher beside it."""
        tape.watch([target.pair.student for target in self.targets])
        outputs = model.forward(batch.ids_BT, context, tape)
        total, gradients = 0.0, {}
        if self.hard_weight > 0:
            value, dhard = self.hard.loss(_Ran(outputs), batch, context, tape, grads)
            total += self.hard_weight * value
            gradients = {name: self.hard_weight * dy for name, dy in _named(dhard).items()}
        if self.hard_weight < 1 or self.targets:
            watching = Tape([target.pair.teacher for target in self.targets], saving=False)
            answers = self.teacher.forward(batch.ids_BT, batch.context(), watching)
            if self.hard_weight < 1:
                for name, value, dy in self._soft(model, batch, _named(outputs), _named(answers)):
                    total += value
                    gradients[name] = np.add(gradients[name], dy, out=dy) if name in gradients else dy
            for target in self.targets:
                seen = tape.seen[target.pair.student], watching.seen[target.pair.teacher]
                total += target.loss(model, *seen, _valid(batch, target.pair.reads_source), grads)
        return total, gradients if isinstance(outputs, dict) else gradients.get("", np.zeros_like(outputs))

    def judge(self, model: Any, batches: Iterable[Batch]) -> float:
        """Judge the student by the text alone."""
        return self.hard.judge(model, batches)

    def _soft(
        self, model: Any, batch: Batch, outputs: dict[str, np.ndarray], answers: dict[str, np.ndarray]
    ) -> Iterator[tuple[str, float, np.ndarray]]:
        """Yield the weighted loss and gradient of each head against the teacher's answer."""
        kinds = {head.name: head.kind for head in getattr(model.config, "heads", ())}
        weights = getattr(self.hard, "weights", {})
        for name, logits in outputs.items():
            keep = _judged(batch, name, kinds.get(name, ""), logits.shape[:-1])
            size = -1, logits.shape[-1]
            value, saved = ops.kl_divergence(
                logits.reshape(size), answers[name].reshape(size), temperature=self.temperature, keep_N=keep.reshape(-1)
            )
            weight = (1.0 - self.hard_weight) * weights.get(name, 1.0)
            yield name, weight * value, ops.kl_divergence_backward(weight, saved).reshape(logits.shape)


class _Ran:
    """Stands for a model that has run already, so that another objective can judge what it said."""

    def __init__(self, outputs: Any) -> None:
        self.outputs = outputs

    def forward(self, x: np.ndarray, context: Context, tape: Tape) -> Any:
        """Return what was said."""
        return self.outputs


def _named(outputs: Any) -> dict[str, np.ndarray]:
    """Return what a model says by the names of its heads; logits of tokens have none."""
    return outputs if isinstance(outputs, dict) else {"": outputs}


def _judged(batch: Batch, name: str, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Tell where the teacher's answer counts: where the text asks for one.

    A masked head is asked at every token, as DistilBERT does, and so is a head that the batch has no labels for.
    """
    labels = batch.labels.get(name) if name else batch.targets_BT
    if labels is not None and kind != "masked":
        judged: np.ndarray = labels != NOT_JUDGED
        return judged
    valid_BT = _valid(batch)
    return valid_BT if valid_BT is not None and valid_BT.shape == shape else np.ones(shape, bool)


def _valid(batch: Batch, reads_source: bool = False) -> np.ndarray | None:
    """Tell which positions are not padding; None: all are."""
    lengths_B, ids = (batch.source_lengths_B, batch.source_BS) if reads_source else (batch.lengths_B, batch.ids_BT)
    if lengths_B is None or ids is None:
        return None
    valid: np.ndarray = np.arange(ids.shape[1]) < lengths_B[:, None]
    return valid
