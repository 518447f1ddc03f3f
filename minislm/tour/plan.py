"""What the tour trains and how long: three sizes, counted in tokens, and the recipe behind each row of its table."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from minislm.compression.base import Method
from minislm.compression.distil import Distil
from minislm.compression.factorise import Factorise
from minislm.compression.finetune import Train
from minislm.compression.low_rank import LowRank
from minislm.compression.prune import Prune
from minislm.compression.qat import QuantizationAware
from minislm.compression.quantize import Quantize
from minislm.compression.recipe import Recipe, Step
from minislm.errors import unknown
from minislm.models.decoder import DecoderConfig
from minislm.training.settings import TrainSettings

PROMPT = "The for statement is used to"
BLOCKS, TABLE = "blocks.*", "embedding.weight"  # every matrix of the blocks; the embedding, which is the head too


@dataclass(frozen=True)
class Plan:
    """Sizes and budgets of one tour.

    Parameters
    ----------
    name : str
        Of the size.
    corpus_bytes : int
        Most bytes of training text; 0: all there is.
    vocab_size, d_model, n_layers, n_heads, context : int
        Of the teacher.
    dropout : float
        Of the teacher, while it trains.
    batch_size : int
        Windows in a step.
    teacher_tokens : int
        Training of the teacher, and of the model that is factorised from the start.
    student_tokens : int
        Training of a student.
    tuning_tokens : int
        Every fine-tuning, and the control's further training.
    held_out_tokens : int
        Most tokens that models are judged on; 0: all there are.
    learning_rate, tuning_rate : float
        Highest rates of training and of fine-tuning.
    seeds : tuple of int
        One distilled student, and one trained alone, for each.
    seed : int
        Counted to every seed of the tour.
    """

    name: str
    corpus_bytes: int
    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    context: int
    dropout: float
    batch_size: int
    teacher_tokens: int
    student_tokens: int
    tuning_tokens: int
    held_out_tokens: int
    learning_rate: float
    tuning_rate: float
    seeds: tuple[int, ...]
    seed: int = 0

    def config(self) -> DecoderConfig:
        """Describe the teacher.

        Returns
        -------
        DecoderConfig
            Rotary positions, layer norm, a plain MLP, a tied head.
        """
        return DecoderConfig.uniform(
            vocab_size=self.vocab_size,
            d_model=self.d_model,
            context=self.context,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            positions="rotary",
            activation="gelu_tanh",
            dropout=self.dropout,
        )

    def training(self, tokens: int, rate: float, *, seed: int = 0, warmup: float = 0.05) -> TrainSettings:
        """Make the settings of one training run.

        Parameters
        ----------
        tokens : int
            Budget.
        rate : float
            Highest learning rate.
        seed : int
            Of the order of the data.
        warmup : float
            Share of the steps over which the rate rises.

        Returns
        -------
        TrainSettings
            With about ten checkpoints.
        """
        base = TrainSettings(batch_size=self.batch_size, learning_rate=rate, seed=seed).for_tokens(tokens, self.context)
        return dataclasses.replace(
            base,
            warmup_steps=max(1, round(warmup * base.steps)),
            checkpoint_every=max(50, base.steps // 10),
            keep_checkpoints=1,
        )


PLANS = {
    "quick": Plan(
        name="quick",
        corpus_bytes=400_000,
        vocab_size=512,
        d_model=64,
        n_layers=2,
        n_heads=4,
        context=64,
        dropout=0.0,
        batch_size=8,
        teacher_tokens=200_000,
        student_tokens=100_000,
        tuning_tokens=40_000,
        held_out_tokens=8_000,
        learning_rate=3e-3,
        tuning_rate=1e-3,
        seeds=(0,),
    ),
    "default": Plan(
        name="default",
        corpus_bytes=0,
        vocab_size=1024,
        d_model=128,
        n_layers=4,
        n_heads=4,
        context=128,
        dropout=0.0,
        batch_size=8,
        teacher_tokens=400_000,
        student_tokens=250_000,
        tuning_tokens=80_000,
        held_out_tokens=16_000,
        learning_rate=2e-3,
        tuning_rate=6e-4,
        seeds=(0,),
    ),
    "full": Plan(
        name="full",
        corpus_bytes=0,
        vocab_size=1024,
        d_model=128,
        n_layers=4,
        n_heads=4,
        context=128,
        dropout=0.0,
        batch_size=16,
        teacher_tokens=5_000_000,
        student_tokens=2_000_000,
        tuning_tokens=800_000,
        held_out_tokens=0,
        learning_rate=2e-3,
        tuning_rate=5e-4,
        seeds=(0, 1, 2),
    ),
}


def plan_named(name: str, seed: int = 0) -> Plan:
    """Look a plan up.

    Parameters
    ----------
    name : str
        ``"quick"``, ``"default"`` or ``"full"``.
    seed : int
        Counted to every seed of the tour.

    Returns
    -------
    Plan
        Its sizes and budgets.

    Raises
    ------
    UnsupportedError
        Code ``unknown_plan``.
    """
    if name not in PLANS:
        raise unknown("plan", name, PLANS)
    return dataclasses.replace(PLANS[name], seed=seed)


@dataclass(frozen=True)
class Row:
    """One model of the tour.

    Parameters
    ----------
    name : str
        Of the model, its folder and its row.
    what : str
        What was done, in a few words.
    recipe : Recipe, optional
        What makes it out of the teacher; None: it is the teacher.
    judged_against : str
        The row that its quality is compared with: the teacher, or the control where it was trained further.
    """

    name: str
    what: str
    recipe: Recipe | None
    judged_against: str = "teacher"


def rows(plan: Plan) -> tuple[Row, ...]:
    """List the models of the tour, in the order in which they are made.

    Parameters
    ----------
    plan : Plan
        Sizes and budgets.

    Returns
    -------
    tuple of Row
        The teacher first.
    """
    tuning = plan.training(plan.tuning_tokens, plan.tuning_rate)
    quantize_table = Step(Quantize("int8"), TABLE)
    return (
        Row("teacher", "trained from scratch", None),
        Row("control", "the teacher trained further", _one(Train(tuning))),
        *(_student(plan, seed, hard_weight) for seed in plan.seeds for hard_weight in _hard_weights(plan)),
        Row(
            "pruned-50",
            "half of each matrix pruned, fine-tuned",
            _one(Prune(sparsity=0.5, training=tuning), BLOCKS),
            "control",
        ),
        Row(
            "pruned-2:4",
            "2 of every 4 weights kept, fine-tuned",
            _one(Prune(pattern="2:4", training=tuning), BLOCKS),
            "control",
        ),
        Row("int8", "8 bits, a scale per row, after training", _one(Quantize("int8"))),
        Row(
            "int4", "4 bits, groups of 32, after training", Recipe((Step(Quantize("int4-32"), BLOCKS), quantize_table))
        ),
        Row(
            "int3", "3 bits, a scale per row, after training", Recipe((Step(Quantize("int3"), BLOCKS), quantize_table))
        ),
        Row(
            "int3-qat",
            "3 bits, a scale per row, trained with rounding",
            Recipe((Step(QuantizationAware("int3", training=tuning), BLOCKS), quantize_table)),
            "control",
        ),
        Row(
            "low-rank",
            "half the parameters by SVD, fine-tuned",
            _one(LowRank(size=0.5, training=tuning), BLOCKS),
            "control",
        ),
        Row(
            "factorised",
            "the same ranks, trained from the start",
            _one(Factorise(plan.training(plan.teacher_tokens, plan.learning_rate), size=0.5), BLOCKS),
        ),
        Row(
            "combined",
            "distilled, 2:4, 4 bits: one recipe",
            Recipe(
                (
                    Step(_distil(plan, seed=0)),
                    Step(Prune(pattern="2:4", training=tuning), BLOCKS),
                    Step(Quantize("int4-32"), BLOCKS),
                    quantize_table,
                )
            ),
        ),
    )


def _one(method: Method, where: str = "*") -> Recipe:
    return Recipe((Step(method, where),))


def _hard_weights(plan: Plan) -> tuple[float, ...]:
    """Return the weights of the text's own tokens: 0.1 distils, 1 trains the same student alone."""
    return (0.1, 1.0) if len(plan.seeds) > 1 else (0.1,)


def _student(plan: Plan, seed: int, hard_weight: float) -> Row:
    alone = hard_weight == 1.0
    suffix = f"-{seed + 1}" if seed else ""
    what = "the same student trained alone" if alone else "a student of every other layer"
    return Row(
        ("alone" if alone else "distilled") + suffix, what, _one(_distil(plan, seed=seed, hard_weight=hard_weight))
    )


def _distil(plan: Plan, **options: Any) -> Distil:
    """Distil at the temperature 1: the teacher's own distribution is what the held-out text is judged by."""
    training = plan.training(plan.student_tokens, plan.learning_rate / 2, seed=options["seed"])
    return Distil(training, temperature=1.0, **options)
