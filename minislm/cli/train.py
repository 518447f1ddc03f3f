"""``minislm train``: a model made for a task, or one of the user's made fit for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minislm.cli import train_options
from minislm.cli.common import Common, check_output, verb
from minislm.cli.terminal import counted, print_table, tell
from minislm.errors import UsageError

if TYPE_CHECKING:
    from minislm.language_model import LanguageModel
    from minislm.training.assignments.base import Assignment
    from minislm.training.data import TrainingData
    from minislm.training.estimate import Estimate
    from minislm.training.settings import TrainSettings


@verb(
    "train",
    examples="""
    minislm train -o out/python --tokens 1000000
    minislm train book.txt notes/ -o out/mine --layers 6 --width 256 --heads 8 --context 256
    minislm train chats.jsonl --field answer -o out/chat --positions rotary --norm rms --mlp gated --activation silu
    minislm train more.txt --from out/mine --lora 8 -o out/mine-2
    minislm train notes/ --task masked -o out/reader
    minislm train intents.csv --task classify --field label=intent --from out/reader -o out/intents
    minislm train commands.jsonl --task classify+tag --epochs 30 --patience 5 -o out/commands
    minislm train squad.jsonl --task answer --cut --from out/reader --freeze "embedding.*" -o out/answers
    minislm train train.en.gz train.de.gz --task translate --label-smoothing 0.1 -o out/en-de --dry-run
    """,
)
@train_options.train_options
def command(common: Common, data: tuple[Path, ...], output: Path, **options: Any) -> None:
    """Train a model on DATA for a task.

    \b
    next       predict text: files, folders, JSONL, CSV; none: this Python's own
    masked     guess hidden words of the same; masked+next-sentence: also
               whether one sentence follows another
    classify   JSONL or CSV with text (and text_pair) and label
    tag        with tokens and their BIO tags, or text and spans (start, end,
               label); classify+tag: both
    answer     as SQuAD: question, context, answers
    translate  two text files, line by line, or JSONL and CSV with source and
               target

    Checkpoints and the record (metrics.jsonl) stand in OUTPUT.run; interrupted and run again, training goes on there
    and ends as if nothing had happened.
    """
    from minislm.cli.live import Live
    from minislm.language_model import save
    from minislm.training.estimate import estimate
    from minislm.training.train import train

    check_output(output, options["source"])
    assignment, start = _started(common, data, options)
    examples = _smoothed(assignment.data(start), options["label_smoothing"])
    settings = train_options.settings(examples, options, seed=common.seed)
    start, settings, ended = _learner(start, settings, options)
    common.note(
        f"{start.model.n_parameters:,} parameters; {counted(examples.train.n_examples, 'example')} of "
        f"{examples.train.n_tokens:,} tokens to train on; {counted(settings.steps, 'step')} of about "
        f"{examples.train.tokens_per_batch(settings.batch_size) * settings.accumulate:,.0f} tokens"
    )
    if options["dry_run"]:
        cost = estimate(start.model, examples, settings)
        common.result(cost.to_json(), lambda: _show_cost(cost))
        return
    with Live(quiet=common.quiet, what=f"train {output.name}") as live:
        directory, resume = output.with_name(output.name + ".run"), options["resume"]
        lm, result = train(
            start, examples, settings, directory=directory, resume=resume, report=live, notice=common.note
        )
    steps = result.history[-1].step
    if result.stopped == "patience":
        common.note(
            f"stopped after step {steps} of {settings.steps}, {settings.patience} evaluations after the best one"
        )
    lm = dataclasses.replace(lm, model=ended(lm.model))
    save(lm, output)
    values = {
        "model": str(output),
        "parameters": lm.model.n_parameters,
        "steps": steps,
        "stopped": result.stopped,
        "train_loss": result.history[-1].loss,
        "validation_loss": result.best_loss,
        **assignment.judged(lm),
    }
    common.result(values, lambda: _show_figures(values))


def _started(common: Common, data: tuple[Path, ...], options: dict[str, Any]) -> tuple[Assignment, LanguageModel]:
    """Read the examples, and load or make the model that is to learn them."""
    from minislm.language_model import load
    from minislm.training.assignments import read
    from minislm.training.train import create

    files = train_options.files(data, options)
    if options["source"] is None:
        assignment = read(options["task"] or "next", files)
        sizes = train_options.sizes(assignment.family, options)
        if heads := assignment.heads():
            sizes["heads"] = heads
        return assignment, create(assignment.texts(), family=assignment.family, seed=common.seed, **sizes)
    train_options.refuse_sizes(options)
    lm = load(options["source"])
    task = options["task"] or train_options.OWN_TASK.get(lm.model.config.type)
    if task is None:
        raise UsageError("bad_option", f"say with --task what {options['source']} is to learn")
    assignment = read(task, files)
    return assignment, assignment.prepared(lm, common.seed)


def _smoothed(examples: TrainingData, label_smoothing: float) -> TrainingData:
    """Spread a share of each next token over the vocabulary."""
    from minislm.training.objective import NextToken

    if not label_smoothing:
        return examples
    if not isinstance(examples.objective, NextToken):
        raise UsageError("bad_option", "--label-smoothing is for next tokens: tasks next and translate")
    return dataclasses.replace(examples, objective=NextToken(label_smoothing))


def _learner(
    start: LanguageModel, settings: TrainSettings, options: dict[str, Any]
) -> tuple[LanguageModel, TrainSettings, Callable[[Any], Any]]:
    """Put updates of low rank beside the blocks' weights, if that was asked for; the last result ends the training."""
    from minislm.compression.lora import Lora

    if options["lora"] is None:
        if options["keep_updates"]:
            raise UsageError("bad_option", "--keep-updates goes with --lora")
        return start, settings, lambda model: model
    if options["source"] is None:
        raise UsageError("bad_option", "--lora trains a model that knows something already: name it with --from")
    tops = {name.partition(".")[0] for name in start.model.parameters()}
    also = ",".join(f"{part}.*" for part in ("heads", "pooler") if part in tops)  # these know nothing of the task yet
    lora = Lora(settings, rank=options["lora"], merge=not options["keep_updates"], also=also)
    begun = lora.begin(start.model, "*blocks.*")
    return dataclasses.replace(start, model=begun.model), begun.settings, lambda model: lora.end(model, begun)


def _show_cost(cost: Estimate) -> None:
    """Print an estimate as a table."""
    print_table(
        ("what", "amount"),
        [
            ("parameters", f"{cost.parameters:,}"),
            ("trained parameters", f"{cost.trained_parameters:,}"),
            ("weights, and their copy that is trained", _megabytes(cost.weights_bytes)),
            ("gradients", _megabytes(cost.gradients_bytes)),
            ("moments", _megabytes(cost.moments_bytes)),
            ("activations", _megabytes(cost.activations_bytes)),
            ("memory in all", _megabytes(cost.total_bytes)),
            ("steps", f"{cost.steps:,} of about {cost.tokens_per_step:,.0f} tokens"),
            ("a step", f"{cost.step_s:.3f} s"),
            ("evaluations", f"{cost.evaluations:,} of {cost.evaluation_s:.2f} s"),
            ("time in all", f"{cost.total_s / 60:.1f} minutes"),
        ],
        right=(1,),
    )


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"


def _show_figures(values: dict[str, Any]) -> None:
    """Print the figures of the task in one line."""
    figures = {name: value for name, value in values.items() if name not in ("model", "parameters", "steps", "stopped")}
    words = (
        f"{name.replace('_', ' ')} {f'{value:.4f}' if isinstance(value, float) else value}"
        for name, value in figures.items()
        if value is not None
    )
    tell(f"{values['model']}: {', '.join(words)}")
