"""``minislm compress``: a recipe applied to a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from minislm.cli.common import Common, print_table, verb


@verb(
    "compress",
    examples="""
    minislm compress out/python int4.yaml -o out/python-int4
    minislm compress out/python student.yaml -o out/student --text book.txt
    minislm compress out/python --method quantize --set format=int8 -o out/python-int8
    minislm compress out/python --method prune --set pattern=2:4 --where "blocks.*" -o out/python-2-4
    """,
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("recipe", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder of the result.")
@click.option("--method", help="One method in place of a recipe file.")
@click.option("--set", "settings", multiple=True, metavar="OPTION=VALUE", help="Option of that method; repeatable.")
@click.option("--where", default="*", show_default=True, help="Weights that the method applies to.")
@click.option(
    "--text",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Text for steps that need it: files, folders, JSONL; default: this Python's reference and docstrings.",
)
@click.option("--field", default="text", show_default=True, help="Field of a JSONL line that holds the text.")
@click.option("--details", is_flag=True, help="Print a row for every weight.")
def command(common: Common, model: Path, recipe: Path | None, output: Path, **options: Any) -> None:
    """Compress MODEL by a RECIPE (YAML: steps of method, where and options), or by one --method.

    Checkpoints of steps that train stand in OUTPUT.run; interrupted and run again, the work goes on there.
    """
    from minislm.cli.live import Live
    from minislm.compression.recipe import Recipe
    from minislm.errors import UsageError
    from minislm.language_model import load, save

    if (recipe is None) == (options["method"] is None):
        raise UsageError("bad_option", "give a RECIPE file or --method, and not both")
    if recipe is not None:
        chosen = Recipe.load(recipe)
    else:
        lines = [f"method: {json.dumps(options['method'])}", f"where: {json.dumps(options['where'])}"]
        for setting in options["settings"]:
            name, equals, value = setting.partition("=")
            if not equals:
                raise UsageError("bad_option", f"--set takes OPTION=VALUE, not {setting!r}")
            lines.append(f"{name}: {value}")
        chosen = Recipe.from_yaml("steps:\n- " + "\n  ".join(lines), "--set")
    lm = load(model)
    with Live(quiet=common.quiet, what="compress") as live:
        small, report = _compressed(lm, chosen, options, live, output)
    save(small, output)
    common.result(report.to_json(), lambda: _show(report, options["details"], output))


def _compressed(lm: Any, recipe: Any, options: dict[str, Any], live: Any, output: Path) -> Any:
    from minislm.compression import compress
    from minislm.text.corpus import from_files, python_corpus
    from minislm.training.train import windows

    data = None
    if recipe.needs_data:
        corpus = from_files(options["text"], field=options["field"]) if options["text"] else python_corpus()
        data = windows(lm, corpus)
    return compress(lm, recipe, data, report=live, directory=output.with_name(output.name + ".run"))


def _show(report: Any, details: bool, output: Path) -> None:
    if details:
        print_table(report.COLUMNS, report.rows())
    click.echo(f"{output}: {report.summary()}")
