"""``minislm classify``: the class of texts."""

from __future__ import annotations

import click

from minislm.cli.common import Common, attention_option, text_options, verb
from minislm.cli.terminal import print_table, score

EXAMPLES = """
minislm classify out/intents -t "play some jazz" -t "will it rain in Berlin?"
minislm classify out/intents -f requests.txt --json
minislm classify downloads/nli -t "It rains." --pair "It is wet." --pair "It is dry."
"""


@verb("classify", examples=EXAMPLES)
@click.argument("model")
@click.option("--pair", "pairs", multiple=True, help="What each text is judged beside; repeated, or one beside all.")
@click.option("--head", help="Which head is asked, where the model has several that classify texts.")
@click.option("--cut", is_flag=True, help="Cut texts that are too long instead of refusing them.")
@attention_option
@text_options
def command(
    common: Common,
    model: str,
    texts: list[str],
    pairs: tuple[str, ...],
    head: str | None,
    cut: bool,
    attention: str,
) -> None:
    """Tell the class of texts with an encoder.

    Each text gets its likeliest class with its probability; --json: those of all classes.
    A model that judges pairs takes the second texts by --pair.
    """
    from minislm.language_model import load

    if len(texts) == 1 or len(pairs) == 1:
        texts, pairs = texts * max(1, len(pairs)), pairs * len(texts)
    found = load(model, attention=attention).classify(texts, pairs or None, head=head, cut=cut)
    read = {"text": texts, **({"pair": pairs} if pairs else {})}
    rows = [dict(zip(read, row, strict=True)) for row in zip(*read.values(), strict=True)]
    common.result(
        [{**row, **one._asdict()} for row, one in zip(rows, found, strict=True)],
        lambda: print_table(
            ("label", "score", *read),
            [(one.label, score(one.score), *row.values()) for row, one in zip(rows, found, strict=True)],
            right=(1,),
        ),
    )
