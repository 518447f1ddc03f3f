"""``minislm translate``: what an encoder-decoder makes of texts."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from minislm.cli.common import Common, text_options, verb

EXAMPLES = """
minislm translate out/en-de -t "A man rides a blue bicycle."
minislm translate out/en-de -f captions.en --beams 1 > captions.de
minislm translate out/summaries - --length-penalty 2 -n 60 < article.txt
"""


@verb("translate", examples=EXAMPLES)
@click.argument("model")
@click.option("--beams", "n_beams", default=4, show_default=True, help="Continuations side by side; 1: greedy.")
@click.option("--length-penalty", type=float, help="The more, the longer the result; default: the model's own.")
@click.option("-n", "--max-new-tokens", type=int, help="Longest result; default: the model's own.")
@text_options
def command(common: Common, model: str, texts: list[str], **options: Any) -> None:
    """Translate texts, or whatever else an encoder-decoder has learnt to make of them.

    MODEL is a model folder. Each line is what became of one text.
    """
    from minislm.language_model import load

    given = {name: value for name, value in options.items() if value is not None}
    found = load(model).translate(texts, seed=common.seed, **given)
    rows = [{"source": text, **dataclasses.asdict(one)} for text, one in zip(texts, found, strict=True)]
    for row in rows:
        del row["timings"]  # of the whole call
    common.result(rows, lambda: click.echo("\n".join(one.text.replace("\n", " ") for one in found)))
    timings = found[0].timings
    common.note(
        f"{len(found):,} texts of {timings.prompt_tokens:,} tokens in {timings.prompt_s:.2f} s; "
        f"{timings.new_tokens:,} new tokens in {timings.generation_s:.2f} s"
    )
