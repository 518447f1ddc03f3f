"""``minislm info``: what a model holds, tensor by tensor, and the program that runs it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from minislm.cli.common import Common, activations_option, verb
from minislm.cli.terminal import print_table, tell

if TYPE_CHECKING:
    from minislm.inference.program import Program
    from minislm.models.base import Model

EXAMPLES = """
minislm info out/teacher
minislm info out/int4 --program
minislm info out/int4 --json
"""


@verb("info", examples=EXAMPLES)
@click.argument("model")
@activations_option
@click.option("--program", is_flag=True, help="Show the steps of the lowered model instead.")
def command(common: Common, model: str, activations: str | None, program: bool) -> None:
    """Show what a model holds, tensor by tensor.

    For each tensor: shape, storage, how activations enter, bytes, bits for each weight. With
    --program: the steps that generation runs for one token at the full context, or an encoder for a text as long as the
    context, with the bytes that each reads and its operations.
    """
    from minislm.language_model import load

    lm = load(model, activations=activations)
    if program:
        _show_program(common, lm.model)
    else:
        _show_tensors(common, lm.model)


def _show_tensors(common: Common, model: Model) -> None:
    rows = [_tensor(path, part) for path, part in model.parts()]
    parameters, size_bytes = model.n_parameters, model.nbytes
    bits = 8 * size_bytes / max(1, sum(math.prod(row["shape"]) for row in rows))
    config = {"type": model.config.type, **model.config.to_json()}
    values = {
        "config": config,
        "parameters": parameters,
        "size_bytes": size_bytes,
        "bits_per_weight": bits,
        "tensors": rows,
    }

    def render() -> None:
        choices = [
            f"{len(value)} {name.replace('_', ' ')}" if isinstance(value, list | tuple) else f"{name} {value}"
            for name, value in config.items()
            if value is not None and name not in ("encoder_layers", "layers", "heads")  # each of these has a line below
        ]
        blocks = [f"{name}: {_sizes(config[name])}" for name in ("encoder_layers", "layers") if name in config]
        heads = [f"{head['name']} ({head['kind']}, {len(head['labels'])} labels)" for head in config.get("heads", ())]
        columns = {
            "tensor": [row["name"] for row in rows],
            "shape": [_by(row["shape"]) for row in rows],
            "storage": [row["storage"] for row in rows],
            "inputs": [row["activations"] for row in rows],
            "bytes": [row["size_bytes"] for row in rows],
            "bits": [f"{row['bits']:.2f}" for row in rows],
        }
        if len(set(columns["inputs"])) == 1:
            choices.append(f"inputs {columns.pop('inputs')[0]}")
        print_table(
            tuple(columns),
            zip(*columns.values(), strict=True),
            right=(len(columns) - 1,),
            title="\n".join([", ".join(choices), *blocks, *(f"head {head}" for head in heads)]),
        )
        tell(f"total: {parameters:,} parameters, {size_bytes:,} bytes, {bits:.2f} bits/weight")

    common.result(values, render)


def _sizes(layers: Sequence[dict[str, Any]]) -> str:
    """Tell the sizes of blocks, those of equal neighbours once."""
    told = []
    for sizes, same in itertools.groupby(layers):
        shared = "" if sizes["n_kv_heads"] == sizes["n_heads"] else f" ({sizes['n_kv_heads']} of keys and values)"
        heads = f"{sizes['n_heads']} heads of {sizes['d_head']}{shared}"
        told.append(f"{len(list(same))} with {heads}, d_ff {sizes['d_ff']}")
    return "; ".join(told)


def _show_program(common: Common, model: Model) -> None:
    from minislm.inference.program import Program
    from minislm.models.encoder import Encoder
    from minislm.models.transformer import Transformer

    length = model.config.context
    lowered: dict[str, tuple[str, Program, int]]
    token = f"one token after {length - 1} others"
    if isinstance(model, Encoder):
        lowered = {"text": (f"a text of {length} tokens", Program.of(model), length)}
    elif isinstance(model, Transformer):
        lowered = {
            "source": (f"a source of {length} tokens", Program.of_source(model), length),
            "token": (f"{token}, with that source", Program.of(model), 1),
        }
    else:
        lowered = {"token": (token, Program.of(model), 1)}
    values = {name: _program_costs(program, n_rows, length) for name, (_, program, n_rows) in lowered.items()}

    def render() -> None:
        for name, (title, _, _) in lowered.items():
            _print_costs(title, values[name])

    common.result(values, render)


def _program_costs(program: Program, n_rows: int, length: int) -> dict[str, Any]:
    costs = program.describe(n_rows, length, source_length=length)
    return {
        "rows": n_rows,
        "length": length,
        "buffer_bytes_per_row": program.row_bytes(),
        "size_bytes": sum(cost.size_bytes for cost in costs),
        "operations": sum(cost.operations for cost in costs),
        "interpreted": program.interpreted(),
        "results": {name: f"%{buffer}" for name, buffer in program.results.items()},
        "steps": [cost._asdict() for cost in costs],
    }


def _print_costs(title: str, costs: dict[str, Any]) -> None:
    names = {buffer: name for name, buffer in costs["results"].items()}
    print_table(
        ("buffer", "op", "reads", "constants", "shape", "bytes", "operations", "result"),
        [
            (
                f"%{step['result']}",
                step["op"],
                " ".join({0: "ids", 1: "positions", 2: "types"}.get(x, f"%{x}") for x in step["inputs"]),
                " ".join(map(_by, step["constants"])),
                _by(step["shape"]),
                step["size_bytes"],
                step["operations"],
                names.get(f"%{step['result']}", ""),
            )
            for step in costs["steps"]
        ],
        title=title,
    )
    tell(
        f"total: {costs['size_bytes']:,} bytes read, {costs['operations']:,} operations, "
        f"{costs['buffer_bytes_per_row']:,} bytes of buffers for each token of a pass"
    )
    tell(f"Python takes part in: {', '.join(costs['interpreted']) or 'no step'}")


def _tensor(path: str, part: Any) -> dict[str, Any]:
    """Describe a Weight or a vector."""
    from minislm.models.base import count_parameters
    from minislm.weights.base import Weight

    row = {"name": path, "shape": list(part.shape), "parameters": count_parameters(part), "size_bytes": part.nbytes}
    if not isinstance(part, Weight):
        return {**row, "storage": part.dtype.name, "activations": "float", "bits": 8.0 * part.itemsize}
    spec = part.spec()
    activations = "+".join(sorted(_activations(spec))) or "float"
    return {**row, "storage": _storage(spec, part), "activations": activations, "bits": part.bits_per_weight}


def _storage(spec: dict[str, Any], part: Any = None) -> str:
    """Say how a Weight is stored, such as ``product(dense, int4-32)``."""
    inner = [_storage(value) for value in spec.values() if isinstance(value, dict)]
    words = [str(spec[name]) for name in ("pattern", "format") if name in spec]
    if spec["type"] == "quantized":
        return words[0]
    if spec["type"] == "dense" and part is not None:
        return f"dense {part.arrays()[''].dtype.name}"
    return " ".join([spec["type"], *words]) + (f"({', '.join(inner)})" if inner else "")


def _activations(spec: dict[str, Any]) -> set[str]:
    """Collect how activations enter a Weight's parts."""
    found = {spec["activations"]} if "activations" in spec else set()
    return found.union(*(_activations(value) for value in spec.values() if isinstance(value, dict)))


def _by(shape: Any) -> str:
    return "x".join(map(str, shape))
