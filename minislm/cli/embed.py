"""``minislm embed``: texts as vectors."""

from __future__ import annotations

from typing import Any

import click

from minislm.cli.common import Common, attention_option, text_options, verb

EXAMPLES = """
minislm embed out/reader -t "play some jazz" -t "put on some music"
minislm embed out/reader -f texts.txt --pooling mean > vectors.txt
minislm embed out/reader-int8 -f texts.txt --attention int8 --json
"""


@verb("embed", examples=EXAMPLES)
@click.argument("model")
@click.option("--pooling", type=click.Choice(["mean", "first"]), help="Default: what the model's config says.")
@click.option(
    "--normalized/--raw",
    default=None,
    help="Give each vector the length 1, or leave it; default: what the model's config says.",
)
@click.option("--cut", is_flag=True, help="Cut texts that are too long instead of refusing them.")
@attention_option
@text_options
def command(common: Common, model: str, texts: list[str], attention: str, **options: Any) -> None:
    """Turn texts into vectors with an encoder.

    Each line is the vector of one text.
    """
    from minislm.language_model import load

    vectors = load(model, attention=attention).embed(texts, **options).tolist()
    common.result(
        [{"text": text, "vector": vector} for text, vector in zip(texts, vectors, strict=True)],
        lambda: click.echo("\n".join(" ".join(f"{number:.6g}" for number in vector) for vector in vectors)),
    )
