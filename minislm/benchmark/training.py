"""Training steps as an engine: the recipe of nanoGPT for a CPU, and a decoder of 10 million parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import minislm
from minislm.benchmark.engine import Engine, Facts
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.training.data import TokenWindows, TrainingData
from minislm.training.environment import environment
from minislm.training.run import Run
from minislm.training.settings import TrainSettings

SIZES: dict[str, dict[str, Any]] = {
    "nanogpt": {"vocab_size": 65, "d_model": 128, "context": 64, "n_layers": 4, "n_heads": 4},
    "10m": {"vocab_size": 65, "d_model": 384, "context": 256, "n_layers": 6, "n_heads": 6},
}
BATCH = {"nanogpt": 12, "10m": 4}
STEPS_COMPARED = 3


def recipe(name: str) -> tuple[Decoder, TrainingData, TrainSettings]:
    """Make what a run needs.

    Parameters
    ----------
    name : str
        One of `SIZES`.

    Returns
    -------
    model : Decoder
        GELU, no biases, tied embedding; always the same weights.
    data : TrainingData
        Windows of random characters: time does not depend on what they are.
    settings : TrainSettings
        Those of nanoGPT for a CPU, without an end.
    """
    config = DecoderConfig.uniform(**SIZES[name], activation="gelu", biases=())
    ids = np.random.default_rng(0).integers(0, config.vocab_size, 100_000, dtype=np.uint16)
    windows = TokenWindows(ids, config.context, "random")
    settings = TrainSettings(
        steps=10**6,
        batch_size=BATCH[name],
        learning_rate=1e-3,
        min_learning_rate_ratio=0.1,
        warmup_steps=100,
        schedule="cosine",
        beta1=0.9,
        beta2=0.99,
        weight_decay=0.1,
        clip=1.0,
        eval_every=0,
        seed=1337,
    )
    return Decoder.create(config, seed=1337), TrainingData(windows, windows), settings


class Steps(Engine):
    """The training loop of minislm.

    Parameters
    ----------
    name : str
        One of `SIZES`.
    """

    def __init__(self, name: str) -> None:
        model, data, settings = recipe(name)
        self.steps = Run(model, data, settings, data.objective, None)
        self.losses = np.array([self.steps.advance().loss for _ in range(STEPS_COMPARED)])

    def facts(self) -> Facts:
        """Tell what runs."""
        return Facts(minislm.__version__, environment()["kernels"] or "NumPy alone", "float32")

    def output(self) -> np.ndarray:
        """Return the losses of the first steps."""
        return self.losses

    def run(self, work: Mapping[str, Any]) -> None:
        """Take one step."""
        self.steps.advance()
