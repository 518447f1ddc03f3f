"""``minislm translate``: what an encoder-decoder makes of texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import click

from minislm.cli.common import Common, context_option, text_options, verb
from minislm.cli.terminal import counted, print_text

EXAMPLES = """
minislm translate out/en-de -t "A man rides a blue bicycle."
minislm translate out/en-de -f captions.en --beams 1 > captions.de
minislm translate downloads/t5-small --task translation_en_to_fr -t "The house is wonderful."
"""


def writing_options(function: Callable[..., None]) -> Callable[..., None]:
    """Let a verb take texts and say how an encoder-decoder is to write.

    Parameters
    ----------
    function : callable
        ``(common, model, texts, **options)``.

    Returns
    -------
    callable
        The same with the options of the command line.
    """
    function = text_options(function)
    for option in (
        click.option("-n", "--max-new-tokens", type=int, help="Longest result; default: the model's own."),
        click.option("--length-penalty", type=float, help="The more, the longer the result; default: the model's own."),
        click.option(
            "--beams", "n_beams", type=int, help="Continuations side by side; 1: greedy; default: the model's, or 4."
        ),
        click.option("--cut", is_flag=True, help="Cut texts that are too long instead of refusing them."),
        click.option("--task", help="One that config.json of the model names; default: the only one of this kind."),
        context_option,
        click.argument("model"),
    ):
        function = option(function)
    return function


def write(common: Common, model: str, how: str, texts: list[str], context: int | None, options: dict[str, Any]) -> None:
    """Write and print what became of texts.

    Parameters
    ----------
    common : Common
        The options of every verb.
    model : str
        A model folder.
    how : {"translate", "summarize"}
        Which method of the LanguageModel does it.
    texts : list of str
        What it reads.
    context : int, optional
        As of `minislm.load`.
    options : dict
        The others of `writing_options`; None: not given.
    """
    from minislm.language_model import load

    given = {name: value for name, value in options.items() if value is not None}
    found = getattr(load(model, context=context), how)(texts, seed=common.seed, **given)
    rows = [{"source": text, **dataclasses.asdict(one)} for text, one in zip(texts, found, strict=True)]
    for row in rows:
        del row["timings"]  # of the whole call
    common.result(rows, lambda: print_text("".join(one.text.replace("\n", " ") + "\n" for one in found)))
    timings = found[0].timings
    common.note(
        f"{counted(len(found), 'text')} of {counted(timings.prompt_tokens, 'token')} in {timings.prompt_s:.2f} s; "
        f"{counted(timings.new_tokens, 'new token')} in {timings.generation_s:.2f} s"
    )


@verb("translate", examples=EXAMPLES)
@writing_options
def command(common: Common, model: str, texts: list[str], context: int | None, **options: Any) -> None:
    """Translate texts with an encoder-decoder.

    Or do whatever else it has learnt to make of texts. Each line is what became of one text.
    """
    write(common, model, "translate", texts, context, options)
