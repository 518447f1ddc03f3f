"""``minislm bench``: the machine's limits, models of known shapes, and the rivals that are installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minislm.cli.common import Common, verb
from minislm.cli.terminal import print_table
from minislm.errors import UsageError, unknown

if TYPE_CHECKING:
    from minislm.benchmark.limits import Limit
    from minislm.benchmark.plan import Suite
    from minislm.benchmark.run import Outcome

EXAMPLES = """
minislm bench --limits
minislm bench --list
minislm bench --work generation --against llama.cpp
minislm bench --work "llama-1.1b/*" -o out/bench --json
minislm bench --model out/int4 --against none
minislm bench --model out/int4 --profile
"""


@verb("bench", examples=EXAMPLES)
@click.option("--limits", "only_limits", is_flag=True, help="Measure the machine's limits and nothing else.")
@click.option("--list", "only_list", is_flag=True, help="List the rows and their contenders; measure nothing.")
@click.option("--work", multiple=True, metavar="NAME", help="A row, a suite, or a pattern of both; may be repeated.")
@click.option("--model", help="A shape or a MODEL, which alone is measured.")
@click.option("--against", multiple=True, metavar="RIVAL", help="Only these rivals; none: no rival. May be repeated.")
@click.option("--profile", is_flag=True, help="With --model: the time of every step of its program instead.")
@click.option("--new", type=click.IntRange(1, 4096), default=64, help="Tokens to generate; default: 64.")
@click.option("--rounds", type=click.IntRange(min=1), help="Timed rounds of each row; default: 5, with --quick 2.")
@click.option("--quick", is_flag=True, help="Short turns, two rounds: to see that all works, not to be quoted.")
@click.option("--without-amx", is_flag=True, help="Take AMX away from every engine, as on a processor without it.")
@click.option("--cache", type=click.Path(path_type=Path), help="Where models are kept; default: the user's cache.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False, writable=True),
    help="A folder for bench.json and roofline.png.",
)
def command(
    common: Common,
    only_limits: bool,
    only_list: bool,
    work: tuple[str, ...],
    model: str | None,
    against: tuple[str, ...],
    profile: bool,
    new: int,
    rounds: int | None,
    quick: bool,
    without_amx: bool,
    cache: Path | None,
    output: Path | None,
) -> None:
    """Measure this machine's limits, minislm and its rivals.

    What can be done at most, what minislm does of it, and what others do. Every engine runs in a process of its own,
    with the same weights and at its best settings. What it computes is compared first. Then all take turns, round after
    round; medians are shown with their spread, and held against their targets. Models of random weights are made once,
    tensor by tensor. Rivals come with the extra `bench`; those that are not installed are named as missing.
    """
    from minislm import dispatch
    from minislm.benchmark.shapes import cache_folder

    cache = cache or cache_folder()
    threads = dispatch.threads()
    if profile:
        _show_profile(common, model, cache)
        return
    chosen = _chosen(cache, model, work, against, new)
    if only_list:
        _list(common, chosen)
        return
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    from minislm.benchmark.limits import measure_limits

    common.note("measuring the machine's limits")
    limits = measure_limits(threads, seconds=0.05 if quick else 0.2, rounds=rounds or (2 if quick else 5))
    if not common.json:
        _show_limits(limits)
    outcomes: list[Outcome] = []
    if not only_limits:
        from minislm.benchmark.run import Settings, measure

        cache.mkdir(parents=True, exist_ok=True)
        settings = Settings(
            threads, rounds or (2 if quick else 5), 0.05 if quick else 1.0, not without_amx, common.note
        )
        for suite in chosen:
            for outcome in measure(suite, limits, settings):
                outcomes.append(outcome)
                _tell(common, outcome)
    _finish(common, limits, outcomes, threads, output)


def _chosen(cache: Path, model: str | None, work: tuple[str, ...], against: tuple[str, ...], new: int) -> list[Suite]:
    """Return the suites with the rows and rivals that were asked for."""
    from minislm.benchmark.suites import RIVALS, chosen, suites

    for name in against:
        if name not in (*RIVALS, "none"):
            raise unknown("rival", name, (*RIVALS, "none"))
    everything = suites(cache, model, n_tokens=new)
    found = chosen(everything, work, against)
    if not found:
        names = [f"{suite.name}/{row.name}" for suite in everything for row in suite.rows]
        raise UsageError("bad_option", f"no row fits {', '.join(map(repr, work))}; rows: {', '.join(names)}")
    return found


def _list(common: Common, chosen: list[Suite]) -> None:
    rows = [
        (f"{suite.name}/{row.name}", row.what, row.unit, ", ".join(contender.label for contender in suite.contenders))
        for suite in chosen
        for row in suite.rows
    ]
    values = [dict(zip(("work", "what", "unit", "engines"), row, strict=True)) for row in rows]
    common.result(values, lambda: print_table(("work", "what", "unit", "engines"), rows))


def _show_limits(limits: list[Limit]) -> None:
    from minislm.benchmark.report import LIMITS, limit_rows

    print_table(LIMITS, limit_rows(limits), right=(1, 2))


def _tell(common: Common, outcome: Outcome) -> None:
    """Show the figures of a row as soon as they are there; with --json on stderr."""
    from minislm.benchmark.report import engine_rows

    for row in engine_rows(outcome):
        common.note(
            f"  {row[1]:24} {row[2]:>10} {row[3]:10} {row[4]:>5}  {row[9] if row[2] == 'failed' else ''}".rstrip()
        )


def _finish(common: Common, limits: list[Limit], outcomes: list[Outcome], threads: int, output: Path | None) -> None:
    """Print the whole; write it, and the picture, into the output folder."""
    import json
    from dataclasses import asdict

    from minislm.benchmark.report import ROWS, TARGETS, engine_rows, plot_roofline, target_rows
    from minislm.training.environment import environment

    values: dict[str, Any] = {
        "environment": environment(),
        "limits": [asdict(limit) for limit in limits],
        "rows": [outcome.to_json() for outcome in outcomes],
    }
    if output is not None:
        (output / "bench.json").write_text(json.dumps(values, indent=2), encoding="utf-8")
        plot_roofline(limits, outcomes, threads, output / "roofline.png")

    def render() -> None:
        if outcomes:
            click.echo()
            print_table(ROWS, [row for outcome in outcomes for row in engine_rows(outcome)], right=(2, 4, 5, 6, 7))
            click.echo()
            print_table(TARGETS, target_rows(outcomes), right=(3, 4, 5))

    common.result(values, render)


def _show_profile(common: Common, model: str | None, cache: Path) -> None:
    """Show where the time of a model goes, step by step."""
    if model is None:
        raise UsageError("bad_option", "--profile needs a --model")
    from minislm.benchmark.profile import PROFILE, profile_model

    profiles = profile_model(model, cache)
    values = {name: [dict(zip(PROFILE, row, strict=True)) for row in rows] for name, rows in profiles.items()}

    def render() -> None:
        for name, rows in profiles.items():
            print_table(PROFILE, rows, title=name, right=range(1, len(PROFILE)))
            click.echo()

    common.result(values, render)
