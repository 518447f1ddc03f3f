"""``minislm fill-mask``: what fits in place of masked words."""

from __future__ import annotations

import click

from minislm.cli.common import Common, attention_option, verb
from minislm.cli.terminal import print_table, score

EXAMPLES = """
minislm fill-mask out/reader -t "The [MASK] statement is used to [MASK] over a sequence."
minislm fill-mask out/reader -t "import [MASK]" --top-k 20 --json
"""


@verb("fill-mask", examples=EXAMPLES)
@click.argument("model")
@click.option("-t", "--text", required=True, help="A text with [MASK] in place of each token to be guessed.")
@click.option("--top-k", default=5, show_default=True, help="How many tokens for each mask.")
@attention_option
def command(common: Common, model: str, text: str, top_k: int, attention: str) -> None:
    """Guess masked tokens with an encoder.

    Masks are numbered from 1.
    """
    from minislm.language_model import load

    found = load(model, attention=attention).fill_mask(text, top_k=top_k)
    common.result(
        [[filling._asdict() for filling in fillings] for fillings in found],
        lambda: print_table(
            ("mask", "token", "score"),
            [
                (number, filling.text, score(filling.score))
                for number, fillings in enumerate(found, start=1)
                for filling in fillings
            ],
            right=(2,),
        ),
    )
