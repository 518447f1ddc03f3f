"""``minislm tour``: the main job, from text to a table of compressed models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from minislm.cli.common import Common, verb
from minislm.cli.terminal import print_table, tell
from minislm.errors import UsageError


@verb(
    "tour",
    examples="""
    minislm tour
    minislm tour --quick -o /tmp/tour
    minislm tour --full -o results
    """,
)
@click.option("-o", "--output", default="tour", show_default=True, type=click.Path(path_type=Path), help="Where to.")
@click.option("--quick", is_flag=True, help="At most a minute.")
@click.option("--full", is_flag=True, help="At most an hour: trained to a plateau, three seeds.")
def command(common: Common, output: Path, quick: bool, full: bool) -> None:
    """Train a small language model, compress it, show the results.

    It is compressed by every family of methods, and each result is measured. Meant to take at most four minutes on two
    idle cores (--quick: one, --full: sixty), and twice that without a C compiler. The text is the language reference
    and the docstrings of this Python. Interrupted and run again, it goes on where it was.

    The output directory holds the models, report.json, report.md and the pictures.
    """
    if quick and full:
        raise UsageError("bad_option", "give --quick or --full, and not both")
    # Where no kernel is compiled BLAS multiplies. Its threads win nothing in products of this size, and beside another
    # program they wait for each other, at a tenth of the speed.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from minislm.cli.live import Live
    from minislm.errors import MinislmError
    from minislm.tour.plan import PROMPT, plan_named
    from minislm.tour.report import COLUMNS, table
    from minislm.tour.run import StageDone, StageStarted, run_tour

    plan = plan_named("quick" if quick else "full" if full else "default", common.seed)
    with Live(quiet=common.quiet) as live:

        def report(event: Any) -> None:
            if isinstance(event, StageStarted):
                live.name(f"[{event.number}/{event.n_stages}] {event.name}")
            elif isinstance(event, StageDone):
                how = "done before" if event.resumed else f"{event.elapsed_s:.1f} s"
                live.line(f"{event.name}: {how}")
            elif isinstance(event, MinislmError):
                live.line(f"note: {event}")
            else:
                live(event)

        document, figures = run_tour(output, plan, report=report)

    def render() -> None:
        print_table(COLUMNS, table(figures), right=range(1, len(COLUMNS)))
        tell("\nMemory is what loading and running adds to a fresh process.")
        tell("KL (divergence) and top 1 (the same first choice) are against the teacher.")
        tell("\nTargets of the tour of full size:")
        print_table(
            ("figure", "measured", "target", ""),
            [
                (
                    t["what"],
                    f"{t['value']:.4f}",
                    f"{'<=' if t['at_most'] else '>='} {t['bound']:g}",
                    "met" if t["met"] else "missed",
                )
                for t in document["targets"]
            ],
            right=(1, 2),
        )
        tell(f"\nWhat each writes after {PROMPT!r}:")
        print_table(("model", "continuation"), [(f.name, " ".join(f.continuation.split())) for f in figures])
        tell(f"\nModels, report.json, report.md and pictures: {output}")

    common.result(document, render)
