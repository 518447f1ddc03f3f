"""``minislm compress``: a recipe applied to a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minislm.cli.common import Common, check_output, verb
from minislm.cli.terminal import print_table, tell
from minislm.cli.train_options import OWN_TASK, TASK_NAMES, files
from minislm.errors import UsageError

if TYPE_CHECKING:
    from minislm.compression.recipe import Recipe
    from minislm.language_model import LanguageModel


@verb(
    "compress",
    examples="""
    minislm compress out/python small.yaml -o out/python-small
    minislm compress out/python student.yaml -o out/student --data book.txt
    minislm compress out/python --method quantize --set format=int8 -o out/python-int8
    minislm compress out/python --method prune --set pattern=2:4 --where "blocks.*" -o out/python-2-4
    minislm compress out/commands half.yaml -o out/commands-half --task classify+tag --data commands.jsonl
    minislm compress out/python --method quantize --set activations=static --set calibration=mse -o out/static
    minislm compress out/en-de --method narrow --set heads=0.5 --set ff=0.5 -o out/narrow --data en.txt --data de.txt
    """,
)
@click.argument("model")
@click.argument("recipe", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder of the result.")
@click.option("--method", help="One method in place of a recipe file.")
@click.option("--set", "settings", multiple=True, metavar="OPTION=VALUE", help="Option of that method; repeatable.")
@click.option("--where", default="*", show_default=True, help="Weights that the method applies to.")
@click.option(
    "--task",
    type=click.Choice(TASK_NAMES),
    metavar="TASK",
    help="What steps learn, as of `minislm train`; default: what the model is for.",
)
@click.option(
    "--data",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Examples for steps that need them, as `minislm train` reads them; default: text of this Python.",
)
@click.option("--held-out", multiple=True, type=click.Path(path_type=Path), help="Judge on this; default: a tenth.")
@click.option("--field", "fields", multiple=True, metavar="[FIELD=]NAME", help="Where --data has a field; repeatable.")
@click.option("--cut", is_flag=True, help="Cut texts that are too long instead of refusing them.")
@click.option("--details", is_flag=True, help="Print a row for every weight.")
def command(common: Common, model: str, recipe: Path | None, output: Path, **options: Any) -> None:
    """Compress MODEL by a RECIPE, or by one --method.

    A RECIPE is a YAML file: steps of method, where and options.

    \b
    quantize            numbers of few bits; inputs too with activations=int8-row,
                        int8-32 or static (calibration=minmax, percentile, mse)
    quantization_aware  the same, trained for it
    prune               small numbers to zero: sparsity=0.5 or pattern=2:4
    narrow              fewer heads and neurons: the least important ones go
    low_rank            matrices as two thin ones: rank, energy or size
    factorise           so from the start, trained anew
    lora                trained on, by updates of low rank
    train               trained on, as it is
    distil              a student: of every other block, from scratch with sizes,
                        or itself; learns answers, the text (hard_weight) and, by
                        hidden_weight, attention_weight, cosine_weight, the inside

    Checkpoints of steps that train stand in OUTPUT.run; interrupted and run again, the work goes on there.
    """
    from minislm.cli.live import Live
    from minislm.compression.recipe import Recipe
    from minislm.language_model import load, save

    check_output(output, model)
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
        chosen = Recipe.from_yaml("steps:\n- " + "\n  ".join(lines), "--method")
    lm = load(model)
    with Live(quiet=common.quiet, what="compress") as live:
        small, report = _compressed(lm, chosen.seeded(common.seed), options, live, output)
    save(small, output)
    common.result(report.to_json(), lambda: _show(report, options["details"], output))


def _compressed(lm: LanguageModel, recipe: Recipe, options: dict[str, Any], live: Any, output: Path) -> Any:
    from minislm.compression import compress
    from minislm.training.assignments import read

    data = None
    if recipe.needs_data:
        task = options["task"] or OWN_TASK.get(lm.model.config.type)
        if task is None:
            raise UsageError("bad_option", "say with --task what the steps of the recipe that learn are to learn")
        data = read(task, files(options["data"], options)).data(lm)
    return compress(lm, recipe, data, report=live, directory=output.with_name(output.name + ".run"))


def _show(report: Any, details: bool, output: Path) -> None:
    if details:
        print_table(report.COLUMNS, report.rows(), right=range(3, len(report.COLUMNS)))
    tell(f"{output}: {report.summary()}")
