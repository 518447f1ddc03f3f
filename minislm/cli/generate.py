"""``minislm generate``: continue a text."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from minislm.cli.common import Common, activations_option, context_option, read_text, verb
from minislm.cli.sampling_options import sampling_options
from minislm.cli.terminal import counted, print_text
from minislm.errors import UsageError

EXAMPLES = """
minislm generate out/teacher -p "The for statement"
minislm generate out/teacher -f prompt.txt -n 200 --temperature 0
echo "def main" | minislm generate out/teacher - --top-k 40 --stop "\\n\\n" --json
"""


@verb("generate", examples=EXAMPLES)
@click.argument("model")
@click.argument("standard_input", required=False, type=click.Choice(["-"]), metavar="[-]")
@click.option("-p", "--prompt", help="The text to continue; may be empty.")
@click.option("-f", "--file", help="A file with the text to continue.")
@context_option
@activations_option
@click.option("-n", "--max-new-tokens", type=int, help="Stop after so many new tokens.")
@sampling_options
@click.option("--stop", multiple=True, help="Stop where this text appears (\\n is a line end); may be repeated.")
@click.option("--beams", "n_beams", type=int, help="Continuations that a search keeps side by side; at temperature 0.")
@click.option("--length-penalty", type=float, help="With beams: the more, the longer the text.")
@click.option("--ignore-eos", is_flag=True, default=None, help="Go on after the end-of-text token.")
def command(
    common: Common,
    model: str,
    standard_input: str | None,
    prompt: str | None,
    file: str | None,
    context: int | None,
    activations: str | None,
    stop: tuple[str, ...],
    **options: Any,
) -> None:
    """Continue a text with a model.

    An encoder-decoder writes what it makes of the text. The text comes from -p, from a file, or from standard input
    (-). New text streams to stdout, what it cost to stderr. Options that are not given are those saved with the model.

    The spelling of a special token, such as <|im_start|>, is read as plain text: use `minislm chat` for what has them.
    """
    text = _prompt(prompt, file, standard_input)
    from minislm.language_model import load

    lm = load(model, context=context, activations=activations)
    given = {name: value for name, value in options.items() if value is not None}
    if stop:
        given["stop"] = [ending.replace("\\n", "\n") for ending in stop]
    if spelled := next((token for token in lm.tokenizer.special_ids if token in text), None):
        chat = "; `minislm chat` writes these as the model's template has them" if lm.tokenizer.roles.templates else ""
        common.note(f"{spelled} in the prompt is read as plain text, not as a special token{chat}")
    stream = lm.stream(text, seed=common.seed, **given)
    if not common.json:
        for piece in stream:
            print_text(piece)
        click.echo()
    result = stream.result
    timings = result.timings
    speeds = {
        "prompt_tokens_per_s": timings.prompt_tokens_per_s,
        "generation_tokens_per_s": timings.generation_tokens_per_s,
    }
    values = {**dataclasses.asdict(result), "seed": common.seed}
    values["timings"] = {**dataclasses.asdict(timings), **speeds}
    common.result(values, render=lambda: None)
    common.note(
        f"prompt {counted(result.prompt_tokens, 'token')}, {timings.prompt_tokens_per_s:,.0f} tokens/s; "
        f"generated {counted(len(result.ids), 'token')}, {timings.generation_tokens_per_s:,.0f} tokens/s; "
        f"stopped: {result.stopped}; seed {common.seed}; cache {timings.cache_bytes / 2**20:,.1f} MiB"
    )


def _prompt(prompt: str | None, file: str | None, standard_input: str | None) -> str:
    """Return the prompt from the one source that was given."""
    if sum(source is not None for source in (prompt, file, standard_input)) != 1:
        raise UsageError("bad_prompt", "give the prompt in one way: -p TEXT, -f FILE, or - for standard input")
    return prompt if prompt is not None else read_text(file or "-")
