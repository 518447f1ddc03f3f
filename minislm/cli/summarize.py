"""``minislm summarize``: what texts say, in fewer words."""

from __future__ import annotations

from typing import Any

from minislm.cli.common import Common, verb
from minislm.cli.translate import write, writing_options

EXAMPLES = """
minislm summarize downloads/t5-small -f articles.txt -n 60
minislm summarize downloads/t5-small -t "$(cat article.txt)" --beams 1
tr '\\n' ' ' < article.txt | minislm summarize out/summaries - --length-penalty 2
"""


@verb("summarize", examples=EXAMPLES)
@writing_options
def command(common: Common, model: str, texts: list[str], context: int | None, **options: Any) -> None:
    """Summarize texts with an encoder-decoder.

    It must have learnt it; beam search has a bent for longer results. Each line is the summary of one text, and each
    line of a file is one text.
    """
    write(common, model, "summarize", texts, context, options)
