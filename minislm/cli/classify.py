"""``minislm classify``: the class of texts."""

from __future__ import annotations

import click

from minislm.cli.common import Common, print_table, text_options, verb

EXAMPLES = """
minislm classify out/intents -t "play some jazz" -t "will it rain in Berlin?"
minislm classify out/intents -f requests.txt --json
"""


@verb("classify", examples=EXAMPLES)
@click.argument("model")
@click.option("--head", help="Which head is asked, where the model has several that classify texts.")
@click.option("--cut", is_flag=True, help="Cut texts that are too long instead of refusing them.")
@text_options
def command(common: Common, model: str, texts: list[str], head: str | None, cut: bool) -> None:
    """Tell the class of texts with an encoder.

    Each text gets its likeliest class with its probability; --json: those of all classes.
    """
    from minislm.language_model import load

    found = load(model).classify(texts, head=head, cut=cut)
    common.result(
        [{"text": text, **one._asdict()} for text, one in zip(texts, found, strict=True)],
        lambda: print_table(
            ("label", "score", "text"),
            [(one.label, f"{one.score:.3f}", text) for text, one in zip(texts, found, strict=True)],
            right=(1,),
        ),
    )
