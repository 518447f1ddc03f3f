"""``minislm answer``: the part of a text that answers a question."""

from __future__ import annotations

import click

from minislm.cli.common import Common, attention_option, read_text, verb
from minislm.cli.terminal import score
from minislm.errors import DataError, UsageError

EXAMPLES = """
minislm answer out/answers -q "Who wrote it?" --context "It was written by Ana in Paris."
minislm answer out/answers -q "What does the for statement do?" -f reference.txt --json
"""


@verb("answer", examples=EXAMPLES)
@click.argument("model")
@click.argument("standard_input", required=False, type=click.Choice(["-"]), metavar="[-]")
@click.option("-q", "--question", required=True, help="The question.")
@click.option("-c", "-t", "--context", help="The text that holds the answer.")
@click.option("-f", "--file", help="A file with that text, of any length.")
@click.option("--max-tokens", default=30, show_default=True, help="Longest answer.")
@attention_option
def command(
    common: Common,
    model: str,
    standard_input: str | None,
    question: str,
    context: str | None,
    file: str | None,
    max_tokens: int,
    attention: str,
) -> None:
    """Find the part of a text that answers a question.

    A long text is read in windows. Nothing is printed where the text seems to
    hold no answer.
    """
    if sum(source is not None for source in (context, file, standard_input)) != 1:
        raise UsageError("bad_option", "give the text in one way: -c TEXT, -f FILE, or - for standard input")
    text = context if context is not None else read_text(file or "-")
    for what, given in (
        ("question (-q)", question),
        (f"text ({'-c' if context is not None else file or 'standard input'})", text),
    ):
        if not given.strip():
            raise DataError("empty_text", f"the {what} is empty; give it words")
    from minislm.language_model import load

    found = load(model, attention=attention).answer(question, text, max_tokens=max_tokens)
    common.result(found._asdict(), lambda: click.echo(found.text, nl=bool(found.text)))
    common.note(f"characters {found.start} to {found.end}, score {score(found.score)}")
