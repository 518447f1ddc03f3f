"""A tiny run, for the tests of training; as a program, the process that they kill."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from minislm.models.decoder import Decoder, DecoderConfig
from minislm.training.data import TokenWindows, TrainingData
from minislm.training.loop import fit
from minislm.training.settings import TrainSettings

CONFIG = DecoderConfig.uniform(vocab_size=11, d_model=8, context=6, n_layers=2, n_heads=2, d_ff=12, dropout=0.2)

# About 3 epochs: 31 windows, 8 windows a step.
SETTINGS = TrainSettings(
    steps=12,
    batch_size=4,
    accumulate=2,
    learning_rate=1e-2,
    warmup_steps=4,
    eval_every=3,
    eval_batches=2,
    checkpoint_every=1,
    keep_checkpoints=100,
    seed=5,
)


def tiny_model(**choices):
    """The decoder that every test starts from."""
    return Decoder.create(DecoderConfig.from_json({**CONFIG.to_json(), **choices}), seed=3)


def tiny_data(n_tokens=192):
    """Tokens in which each one depends on the one before, so that there is something to learn."""
    rng = np.random.default_rng(7)
    ids = np.cumsum(rng.integers(1, 4, n_tokens + 60)) % CONFIG.vocab_size
    return TrainingData(TokenWindows(ids[:n_tokens].astype(np.uint16), 6), TokenWindows(ids[n_tokens:], 6))


def same_bits(a, b):
    """Whether two dictionaries of arrays are equal, bit by bit."""
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and a[n].tobytes() == b[n].tobytes() for n in a)


def timeless(history):
    """The record without its times."""
    return [(r.step, r.steps, r.loss, r.learning_rate, r.grad_norm, r.tokens, r.validation_loss) for r in history]


def decoder_run():
    """A model and its data, as `task_runs` has them for the other families."""
    return tiny_model(), tiny_data()


if __name__ == "__main__":
    from task_runs import RUNS

    directory, steps, name = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    make = {"decoder": decoder_run, **RUNS}[name]
    kept = 1 if steps == 2 else 2
    settings = TrainSettings(**{**SETTINGS.to_json(), "steps": steps, "keep_checkpoints": kept})

    if "wait" in sys.argv:  # for a tracer, which should see no import
        with tempfile.TemporaryDirectory() as elsewhere:
            fit(*make(), SETTINGS, directory=elsewhere)
        print("ready", flush=True)
        sys.stdin.readline()

    def say(record):
        print(f"step {record.step}", flush=True)

    fit(*make(), settings, directory=directory, report=say)
