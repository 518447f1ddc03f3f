"""The options of ``generate`` and ``chat`` that say how the next token is chosen, and what is kept meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import click

OPTIONS = (
    click.option("--temperature", type=float, help="Divides the logits; 0 always takes the most likely token."),
    click.option("--top-k", type=int, help="Keep the k most likely tokens; 0 keeps all."),
    click.option("--top-p", type=float, help="Keep the most likely tokens that together reach this probability."),
    click.option("--min-p", type=float, help="Keep tokens at least this fraction as likely as the most likely one."),
    click.option("--repetition-penalty", type=float, help="More than 1 makes tokens that have appeared less likely."),
    click.option(
        "--cache",
        metavar="DTYPE",
        help="How keys and values are kept: float32 (the default), float16, or int8, which takes a quarter of the "
        "memory and is faster, the more so the longer the text; attention is then off by about 1 %.",
    ),
)


def sampling_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a verb these options.

    Parameters
    ----------
    function : callable
        Takes each by its name, a field of `GenerationSettings`; None where it is not given.

    Returns
    -------
    callable
        The same, to be decorated with its other options.
    """
    for option in reversed(OPTIONS):
        function = option(function)
    return function
