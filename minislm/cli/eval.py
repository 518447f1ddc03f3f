"""``minislm eval``: how well a model predicts a text, how fast, and how close to another."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from minislm.cli.common import Common, print_table, verb


@verb(
    "eval",
    examples="""
    minislm eval out/python
    minislm eval out/python-int4 --against out/python --max-perplexity-ratio 1.02
    minislm eval out/mine --text book.txt --speed --memory
    """,
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--text",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Files, folders, JSONL; default: held-out text of this Python.",
)
@click.option("--field", default="text", show_default=True, help="Field of a JSONL line that holds the text.")
@click.option("--max-tokens", default=0, help="Judge on so many tokens at most; default: all.")
@click.option(
    "--against", type=click.Path(path_type=Path), help="A model to compare with: KL, top 1, perplexity ratio."
)
@click.option("--speed", is_flag=True, help="Time a prompt and a continuation.")
@click.option("--memory", is_flag=True, help="Measure peak memory in a fresh process.")
@click.option("--max-perplexity-ratio", type=float, help="With --against: exit with 5 above this ratio.")
def command(common: Common, model: Path, max_perplexity_ratio: float | None, **options: Any) -> None:
    """Judge MODEL on held-out text."""
    from minislm.errors import GateError, UsageError
    from minislm.evaluation.memory import peak_memory
    from minislm.evaluation.quality import agreement, likelihood, text_bytes
    from minislm.evaluation.speed import measure_speed
    from minislm.language_model import load

    if max_perplexity_ratio is not None and options["against"] is None:
        raise UsageError("bad_option", "--max-perplexity-ratio needs --against")
    lm = load(model)
    ids = _tokens(lm, options)
    judged = likelihood(lm.model, ids, n_bytes=text_bytes(lm, ids))
    values: dict[str, Any] = {
        "tokens": judged.n_tokens,
        "nll_nats": judged.nll_nats,
        "perplexity": judged.perplexity,
        "bits_per_byte": judged.bits_per_byte,
    }
    if options["against"] is not None:
        other = load(options["against"])
        values["perplexity_ratio"] = judged.perplexity / likelihood(other.model, ids).perplexity
        close = agreement(lm.model, other.model, ids)
        values["kl_nats"], values["top_1"] = close.kl_nats, close.top_1
    if options["speed"]:
        half = lm.model.config.context // 2
        speed = measure_speed(lm, prompt_tokens=half, new_tokens=half)
        values["prompt_tokens_per_s"], values["generation_tokens_per_s"] = dataclasses.astuple(speed)
    if options["memory"]:
        values["memory_growth_bytes"] = peak_memory(model).growth_bytes
    common.result(values, lambda: print_table(("figure", "value"), [(k, _words(v)) for k, v in values.items()]))
    if max_perplexity_ratio is not None and not values["perplexity_ratio"] <= max_perplexity_ratio:
        raise GateError(
            "perplexity_gate",
            f"the perplexity ratio is {values['perplexity_ratio']:.4f}, above {max_perplexity_ratio:g}",
        )


def _tokens(lm: Any, options: dict[str, Any]) -> Any:
    from minislm.text.corpus import from_files, python_corpus

    if options["text"]:
        corpus = from_files(options["text"], field=options["field"])
        documents = (*corpus.train, *corpus.held_out)
    else:
        documents = python_corpus().held_out
    ids = lm.tokenizer.encode_documents(documents)
    return ids[: options["max_tokens"] or None]


def _words(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"
