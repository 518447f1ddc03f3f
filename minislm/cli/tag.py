"""``minislm tag``: the labelled parts of texts."""

from __future__ import annotations

import click

from minislm.cli.common import Common, attention_option, text_options, verb
from minislm.cli.terminal import print_table, score

EXAMPLES = """
minislm tag out/commands -t "play jazz by Nina Simone"
minislm tag out/commands -f requests.txt --json
"""


@verb("tag", examples=EXAMPLES)
@click.argument("model")
@click.option("--head", help="Which head is asked, where the model has several that tag.")
@click.option("--cut", is_flag=True, help="Cut texts that are too long instead of refusing them.")
@attention_option
@text_options
def command(common: Common, model: str, texts: list[str], head: str | None, cut: bool, attention: str) -> None:
    """Find the labelled parts of texts with an encoder.

    A part has a label, the characters where it starts and ends, and the mean probability of
    its tags; texts are numbered from 1.
    """
    from minislm.language_model import load

    found = load(model, attention=attention).tag(texts, head=head, cut=cut)
    common.result(
        [{"text": text, "spans": [span._asdict() for span in spans]} for text, spans in zip(texts, found, strict=True)],
        lambda: print_table(
            ("text", "start", "end", "label", "part", "score"),
            [
                (number, span.start, span.end, span.label, span.text, score(span.score))
                for number, spans in enumerate(found, start=1)
                for span in spans
            ],
            right=(5,),
        ),
    )
