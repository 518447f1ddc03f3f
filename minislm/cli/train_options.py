"""The options of ``minislm train``: what they are, what they default to, and what they mean to the library."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minislm.cli.common import named_fields
from minislm.errors import UsageError

if TYPE_CHECKING:
    from minislm.training.assignments.base import Files
    from minislm.training.data import TrainingData
    from minislm.training.settings import TrainSettings

TASK_NAMES = ("next", "masked", "masked+next-sentence", "classify", "tag", "classify+tag", "answer", "translate")
OWN_TASK = {"decoder": "next", "transformer": "translate"}  # of a model that --from names, unless --task says another

# What a fresh model of each family is made of unless options say otherwise. An option that a family does not list is
# refused for it.
SIZES: dict[str, dict[str, Any]] = {
    "decoder": {
        "tokenizer": "bpe",
        "vocab_size": 1024,
        "layers": 4,
        "width": 128,
        "heads": 4,
        "kv_heads": None,
        "d_ff": None,
        "context": 128,
        "positions": "learned",
        "norm": "layer",
        "mlp": "plain",
        "activation": "gelu",
        "dropout": 0.0,
    },
    "encoder": {
        "tokenizer": "wordpiece",
        "vocab_size": 4000,
        "lowercase": False,
        "layers": 4,
        "width": 128,
        "heads": 4,
        "d_ff": None,
        "context": 128,
        "pooling": "first",
        "activation": "gelu",
        "dropout": 0.1,
    },
    "transformer": {
        "tokenizer": "bpe",
        "vocab_size": 6000,
        "layers": 3,
        "width": 256,
        "heads": 4,
        "d_ff": None,
        "context": 128,
        "activation": "relu",
        "dropout": 0.1,
    },
}
NAMES = {"layers": "n_layers", "width": "d_model", "heads": "n_heads", "kv_heads": "n_kv_heads"}  # in the library

POSITIVE = click.IntRange(min=1)
OPTIONS = [
    click.argument("data", nargs=-1, type=click.Path(path_type=Path)),
    click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder of the model."),
    click.option(
        "--task", type=click.Choice(TASK_NAMES), metavar="TASK", help="What to learn; default: next, or that of --from."
    ),
    click.option("--held-out", multiple=True, type=click.Path(path_type=Path), help="Judge on this; default: a tenth."),
    click.option(
        "--field", "fields", multiple=True, metavar="[FIELD=]NAME", help="Where DATA has a field; repeatable."
    ),
    click.option("--cut", is_flag=True, help="Cut texts that are too long instead of refusing them."),
    # where to begin
    click.option("--from", "source", metavar="MODEL", help="Go on from this model and its tokenizer."),
    click.option("--lora", type=click.IntRange(min=1), metavar="RANK", help="Train only updates of this rank."),
    click.option("--keep-updates", is_flag=True, help="Keep them beside the weights; default: add them up."),
    click.option("--freeze", multiple=True, metavar="PATTERN", help="Leave these arrays as they are; repeatable."),
    # a fresh model
    click.option("--tokenizer", type=click.Choice(["bpe", "bytes", "characters", "wordpiece"])),
    click.option("--vocab-size", type=POSITIVE, help="Tokens; default: 1024, encoders 4000, transformers 6000."),
    click.option("--lowercase", is_flag=True, default=None, help="Take all letters for small ones (wordpiece)."),
    click.option("--layers", type=POSITIVE, help="Blocks; of a transformer on each side; default: 4, transformers 3."),
    click.option("--width", type=POSITIVE, help="Of the residual stream; default: 128, transformers 256."),
    click.option("--heads", type=POSITIVE, help="Query heads; default: 4."),
    click.option("--kv-heads", type=POSITIVE, help="Key and value heads; default: as many as query heads."),
    click.option("--d-ff", type=POSITIVE, help="Feed-forward width; default: four times the width."),
    click.option("--context", type=POSITIVE, help="Positions; default: 128."),
    click.option("--positions", type=click.Choice(["learned", "rotary"]), help="Of a decoder; default: learned."),
    click.option("--norm", type=click.Choice(["layer", "rms"]), help="Of a decoder; default: layer."),
    click.option("--mlp", type=click.Choice(["plain", "gated"]), help="Of a decoder; default: plain."),
    click.option("--pooling", type=click.Choice(["first", "mean"]), help="Of an encoder; default: first."),
    click.option("--activation", type=click.Choice(["gelu", "gelu_tanh", "relu", "silu"])),
    click.option("--dropout", type=float, help="Default: decoders 0, others 0.1."),
    # how to train
    click.option("--epochs", type=float, help="Passes over the examples; default for labels and pairs: 10."),
    click.option("--tokens", type=POSITIVE, help="Budget in their place; default for text: 2,000,000."),
    click.option("--batch-size", type=POSITIVE, help="Examples in a pass; default: text 8, labels and pairs 32."),
    click.option("--accumulate", default=1, show_default=True, help="Passes in a step."),
    click.option("--learning-rate", type=float, help="The highest; default: 1e-3, with --from 3e-4."),
    click.option("--schedule", type=click.Choice(["cosine", "linear", "constant"]), default="cosine"),
    click.option("--weight-decay", default=0.1, show_default=True),
    click.option("--label-smoothing", default=0.0, show_default=True, help="Of next tokens, [0, 1)."),
    click.option("--eval-every", type=int, help="Steps; 0: only at the end; default: text 200, others an epoch's."),
    click.option("--patience", default=0, show_default=True, help="Stop after so many without a new best; 0: never."),
    click.option("--checkpoint-every", default=200, show_default=True, help="Steps between checkpoints."),
    click.option("--resume/--no-resume", default=True, help="Go on from checkpoints, or refuse them; default: go on."),
    click.option("--dry-run", is_flag=True, help="Say what memory and time it would take, and stop."),
]


def train_options(function: Callable[..., None]) -> Callable[..., None]:
    """Put all options of ``minislm train`` on a function.

    Parameters
    ----------
    function : callable
        To become the verb.

    Returns
    -------
    callable
        The same one.
    """
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def files(data: tuple[Path, ...], options: Mapping[str, Any]) -> Files:
    """Say where the examples stand.

    Parameters
    ----------
    data : tuple of Path
        What to train on.
    options : mapping
        As click gives them.

    Returns
    -------
    Files
        For `assignments.read`.

    Raises
    ------
    UsageError
        Code ``bad_option``: there is no such field.
    """
    from minislm.training.assignments.base import Files

    return Files(data, options["held_out"], named_fields(options["fields"]), options["cut"])


def sizes(family: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Say what a fresh model is made of.

    Parameters
    ----------
    family : str
        A key of `SIZES`.
    options : mapping
        As click gives them.

    Returns
    -------
    dict
        Arguments of `training.train.create`.

    Raises
    ------
    UsageError
        Code ``bad_option``: an option that this family does not have, or heads that cannot be.
    """
    from minislm.config import MOST_HEAD

    _refuse(options, set().union(*SIZES.values()) - SIZES[family].keys(), f"a model of type {family} does not have")
    chosen = {name: default if options[name] is None else options[name] for name, default in SIZES[family].items()}
    width, heads, kv_heads = chosen["width"], chosen["heads"], chosen.get("kv_heads") or 1
    if width % heads:
        raise UsageError("bad_option", f"--width ({width}) must be a multiple of --heads ({heads})")
    if heads % kv_heads:
        raise UsageError("bad_option", f"--heads ({heads}) must be a multiple of --kv-heads ({kv_heads})")
    if width // heads > MOST_HEAD:
        told = f"--width {width} and --heads {heads} make heads wider than {MOST_HEAD}; give less width or more heads"
        raise UsageError("bad_option", told)
    return {NAMES.get(name, name): value for name, value in chosen.items()}


def refuse_sizes(options: Mapping[str, Any]) -> None:
    """Refuse options of a fresh model where training goes on from another one.

    Parameters
    ----------
    options : mapping
        As click gives them.

    Raises
    ------
    UsageError
        Code ``bad_option``.
    """
    _refuse(options, set().union(*SIZES.values()), "with --from the model is what it is: leave out")


def _refuse(options: Mapping[str, Any], names: set[str], why: str) -> None:
    if given := sorted(name for name in names if options[name] is not None):
        raise UsageError("bad_option", f"{why} --{given[0].replace('_', '-')}")


def settings(data: TrainingData, options: Mapping[str, Any], *, seed: int) -> TrainSettings:
    """Say how to train.

    Parameters
    ----------
    data : TrainingData
        The examples, which some defaults depend on.
    options : mapping
        As click gives them.
    seed : int
        For the order and for dropout.

    Returns
    -------
    TrainSettings
        With a warm-up over a twentieth of the steps.

    Raises
    ------
    UsageError
        Code ``bad_option``: both `epochs` and `tokens`, or no epochs.
    ConfigError
        Code ``config_invalid``: out of range.
    """
    from minislm.training.settings import TrainSettings
    from minislm.training.tasks.bucketed import Bucketed

    one_by_one = isinstance(data.train, Bucketed)
    epochs, tokens = options["epochs"], options["tokens"]
    if epochs is not None and tokens is not None:
        raise UsageError("bad_option", "give --epochs or --tokens, and not both")
    if epochs is not None and not 0 < epochs < math.inf:
        raise UsageError("bad_option", f"--epochs must be more than 0, not {epochs}")
    if epochs is None and tokens is None:
        epochs, tokens = (10, None) if one_by_one else (None, 2_000_000)
    chosen = ("accumulate", "schedule", "weight_decay", "patience", "checkpoint_every")
    base = TrainSettings(
        **{name: options[name] for name in chosen},
        batch_size=_or(options["batch_size"], 32 if one_by_one else 8),
        learning_rate=_or(options["learning_rate"], 3e-4 if options["source"] else 1e-3),
        eval_batches=50 if one_by_one else 16,
        freeze=",".join(options["freeze"]),
        seed=seed,
    )
    passes = -(-data.train.n_examples // base.batch_size)
    per_step = data.train.tokens_per_batch(base.batch_size) * base.accumulate
    steps = round(passes * epochs / base.accumulate) if tokens is None else -(-tokens // max(1, round(per_step)))
    steps = max(1, int(steps))
    return dataclasses.replace(
        base,
        steps=steps,
        warmup_steps=steps // 20,
        eval_every=_or(options["eval_every"], max(1, passes // base.accumulate) if one_by_one else 200),
    )


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
