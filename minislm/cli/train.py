"""``minislm train``: a tokenizer and a decoder from text."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from minislm.cli.common import Common, verb


@verb(
    "train",
    examples="""
    minislm train -o out/python --tokens 1000000
    minislm train book.txt notes/ -o out/mine --layers 6 --width 256 --heads 8 --context 256
    minislm train chats.jsonl --field answer -o out/chat --positions rotary --norm rms --mlp gated --activation silu
    minislm train more.txt --from out/mine -o out/mine-2 --learning-rate 3e-4
    """,
)
@click.argument("text", nargs=-1, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder of the model.")
@click.option("--from", "source", type=click.Path(path_type=Path), help="Go on from this model and its tokenizer.")
@click.option("--field", default="text", show_default=True, help="Field of a JSONL line that holds the text.")
@click.option("--tokenizer", type=click.Choice(["bpe", "bytes", "characters"]), default="bpe", show_default=True)
@click.option("--vocab-size", default=1024, show_default=True, help="Of a BPE tokenizer.")
@click.option("--layers", default=4, show_default=True, help="Number of blocks.")
@click.option("--width", default=128, show_default=True, help="Of the residual stream.")
@click.option("--heads", default=4, show_default=True, help="Query heads.")
@click.option("--kv-heads", type=int, help="Key and value heads; default: as many as query heads.")
@click.option("--d-ff", type=int, help="Feed-forward width; default: four times the width.")
@click.option("--context", default=128, show_default=True, help="Positions.")
@click.option("--positions", type=click.Choice(["learned", "rotary"]), default="learned", show_default=True)
@click.option("--norm", type=click.Choice(["layer", "rms"]), default="layer", show_default=True)
@click.option("--mlp", type=click.Choice(["plain", "gated"]), default="plain", show_default=True)
@click.option(
    "--activation", type=click.Choice(["gelu", "gelu_tanh", "relu", "silu"]), default="gelu", show_default=True
)
@click.option("--dropout", default=0.0, show_default=True)
@click.option("--tokens", default=2_000_000, show_default=True, help="Budget, repeated ones counted each time.")
@click.option("--batch-size", default=8, show_default=True, help="Windows in a pass.")
@click.option("--accumulate", default=1, show_default=True, help="Passes in a step.")
@click.option("--learning-rate", default=1e-3, show_default=True, help="The highest.")
@click.option("--schedule", type=click.Choice(["cosine", "linear", "constant"]), default="cosine", show_default=True)
@click.option("--weight-decay", default=0.1, show_default=True)
@click.option("--eval-every", default=200, show_default=True, help="Steps between evaluations.")
@click.option("--patience", default=0, show_default=True, help="Stop after so many without a new best; 0: never.")
@click.option("--checkpoint-every", default=200, show_default=True, help="Steps between checkpoints.")
def command(common: Common, text: tuple[Path, ...], output: Path, **options: Any) -> None:
    """Train a decoder on TEXT: files, folders, JSONL; none: this Python's reference and docstrings.

    Checkpoints and the record (metrics.jsonl) stand in OUTPUT.run; interrupted and run again, training goes on there
    and ends as if nothing had happened.
    """
    from minislm.cli.live import Live
    from minislm.evaluation.quality import evaluate
    from minislm.language_model import load, save
    from minislm.text.corpus import from_files, python_corpus
    from minislm.training.settings import TrainSettings
    from minislm.training.train import create, train

    corpus = from_files(text, field=options["field"]) if text else python_corpus()
    start = load(options["source"]) if options["source"] else create(corpus, seed=common.seed, **_sizes(options))
    context = start.model.config.context
    chosen = ("batch_size", "accumulate", "learning_rate", "schedule", "weight_decay", "eval_every", "patience")
    settings = TrainSettings(
        **{name: options[name] for name in (*chosen, "checkpoint_every")}, eval_batches=16, seed=common.seed
    ).for_tokens(options["tokens"], context)
    settings = dataclasses.replace(settings, warmup_steps=settings.steps // 20)
    common.note(
        f"{start.model.n_parameters:,} parameters; {corpus.train_bytes:,} bytes of text to train on, "
        f"{corpus.held_out_bytes:,} held out; {settings.steps:,} steps of {settings.tokens_per_step(context):,} tokens"
    )
    with Live(quiet=common.quiet, what=f"train {output.name}") as live:
        lm, result = train(start, corpus, settings, directory=output.with_name(output.name + ".run"), report=live)
    save(lm, output)
    for note in result.notes:
        common.note(note)
    judged = evaluate(lm, corpus.held_out)
    values = {
        "model": str(output),
        "parameters": lm.model.n_parameters,
        "steps": result.history[-1].step,
        "train_loss": result.history[-1].loss,
        "validation_loss": judged.nll_nats,
        "perplexity": judged.perplexity,
        "bits_per_byte": judged.bits_per_byte,
    }

    def render() -> None:
        click.echo(
            f"{output}: validation loss {judged.nll_nats:.4f} nats a token, perplexity {judged.perplexity:.2f}, "
            f"{judged.bits_per_byte:.3f} bits a byte"
        )

    common.result(values, render)


def _sizes(options: dict[str, Any]) -> dict[str, Any]:
    """Translate the options to those of `create`."""
    same = ("tokenizer", "vocab_size", "d_ff", "context", "positions", "norm", "mlp", "activation", "dropout")
    renamed = {"n_layers": "layers", "d_model": "width", "n_heads": "heads", "n_kv_heads": "kv_heads"}
    return {name: options[name] for name in same} | {name: options[option] for name, option in renamed.items()}
