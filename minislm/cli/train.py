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
    from minislm.evaluation.quality import likelihood
    from minislm.inference.settings import GenerationSettings
    from minislm.language_model import LanguageModel, load, save
    from minislm.models.decoder import Decoder
    from minislm.text.corpus import from_files, python_corpus
    from minislm.text.tokenizer import Tokenizer
    from minislm.training.data import TokenWindows, TrainingData
    from minislm.training.loop import fit
    from minislm.training.settings import TrainSettings

    corpus = from_files(text, field=options["field"]) if text else python_corpus()
    if options["source"] is not None:
        start = load(options["source"])
    else:
        tokenizer = Tokenizer.train(corpus.train, vocab_size=options["vocab_size"], kind=options["tokenizer"])
        start = LanguageModel(
            Decoder.create(_config(tokenizer.vocab_size, options), common.seed), tokenizer, GenerationSettings()
        )
    context = start.model.config.context
    train, held_out = (start.tokenizer.encode_documents(part) for part in (corpus.train, corpus.held_out))
    data = TrainingData(TokenWindows(train, context), TokenWindows(held_out, context))
    settings = TrainSettings(
        batch_size=options["batch_size"],
        accumulate=options["accumulate"],
        learning_rate=options["learning_rate"],
        schedule=options["schedule"],
        weight_decay=options["weight_decay"],
        eval_every=options["eval_every"],
        eval_batches=16,
        patience=options["patience"],
        checkpoint_every=options["checkpoint_every"],
        seed=common.seed,
    )
    settings = settings.for_tokens(options["tokens"], context)
    settings = dataclasses.replace(settings, warmup_steps=settings.steps // 20)
    common.note(
        f"{start.model.n_parameters:,} parameters, {len(train):,} tokens to train on, {len(held_out):,} held out, "
        f"{settings.steps:,} steps of {settings.tokens_per_step(context):,} tokens"
    )
    with Live(quiet=common.quiet, what=f"train {output.name}") as live:
        result = fit(start.model, data, settings, directory=output.with_name(output.name + ".run"), report=live)
    lm = LanguageModel(result.model, start.tokenizer, start.settings)
    save(lm, output)
    judged = likelihood(result.model, held_out, n_bytes=len(start.tokenizer.decode(held_out[1:].tolist()).encode()))
    values = {
        "model": str(output),
        "parameters": result.model.n_parameters,
        "steps": len(result.history),
        "train_loss": result.history[-1].loss if result.history else None,
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


def _config(vocab_size: int, options: dict[str, Any]) -> Any:
    from minislm.models.decoder import DecoderConfig

    return DecoderConfig.uniform(
        vocab_size=vocab_size,
        d_model=options["width"],
        n_layers=options["layers"],
        n_heads=options["heads"],
        n_kv_heads=options["kv_heads"],
        d_ff=options["d_ff"],
        **{name: options[name] for name in ("context", "positions", "norm", "mlp", "activation", "dropout")},
    )
