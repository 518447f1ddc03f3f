"""What each step of a Program costs: bytes read of the model and the cache, and operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minislm.inference.steps import Step
from minislm.ops.panels import BLOCK, OUTPUTS
from minislm.weights.base import Weight

LOOKUPS = ("embedding", "quantized_rows", "rows")  # of rows of a weight by their numbers


class StepCost(NamedTuple):
    """One line of `Program.describe`.

    Parameters
    ----------
    result : int
        The buffer that the step writes.
    op : str
        What it does.
    inputs : tuple of int
        The buffers that it reads; 0 holds the token ids, 1 the positions, 2 the types.
    constants : tuple of tuple of int
        Shapes of the model's arrays that it reads.
    shape : tuple of int
        Rows and width of its result.
    size_bytes : int
        Bytes that it reads of the model, or of the cache.
    operations : int
        Multiplications and additions.
    """

    result: int
    op: str
    inputs: tuple[int, ...]
    constants: tuple[tuple[int, ...], ...]
    shape: tuple[int, int]
    size_bytes: int
    operations: int


def step_cost(step: Step, widths: Sequence[int], n_rows: int, n_keys: int) -> StepCost:
    """Tell what a step costs.

    Parameters
    ----------
    step : Step
        The step.
    widths : sequence of int
        Numbers in a row of each buffer that it reads, whole numbers for tokens left out.
    n_rows : int
        Rows of its result, all of one sequence.
    n_keys : int
        Keys that each of them meets, if it attends.

    Returns
    -------
    StepCost
        Bytes and operations.
    """
    given = (part for x in step.constants for part in (x.arrays().values() if isinstance(x, Weight) else [x]))
    arrays = [array for array in given if array is not None]
    size_bytes = sum(array.nbytes for array in arrays)
    if step.op == "attend":
        size_bytes = 4 * n_keys * sum(widths[1:])
    elif step.op == "attend_source":
        size_bytes = 2 * 4 * n_keys * step.options["n_kv_heads"] * step.options["d_head"]
    elif step.op in LOOKUPS:
        size_bytes = size_bytes * n_rows // step.constants[0].shape[0]
    operations = n_rows * _row_operations(step, widths, arrays, n_keys)
    shapes = tuple(array.shape for array in arrays)
    return StepCost(step.result, step.op, step.inputs, shapes, (n_rows, step.width), size_bytes, operations)


def _row_operations(step: Step, widths: Sequence[int], arrays: list[np.ndarray], n_keys: int) -> int:
    """Count a step's multiplications and additions for one row; one for each result where it is elementwise."""
    if step.op.startswith("attend"):
        return 4 * n_keys * step.width  # q with every key, probabilities with every value
    if step.op in (*LOOKUPS, "outputs", "neighbours", "columns", "pool_first", "keep_source"):
        return 0
    if step.op == "pool_mean":
        return n_keys * step.width
    if step.op in ("bitmap_product", "nm_product", "csr_product"):
        return 2 * max(array.size for array in arrays if array.dtype.kind == "f")
    if step.op == "block_sparse_panel_product":
        return 2 * OUTPUTS * BLOCK * len(arrays[0])
    if step.op == "low_rank_product":
        return 2 * sum(array.size for array in arrays)
    if step.op in ("panel_product", "block_panel_product", "masked_panel_product"):
        return 2 * int(step.options["n_inputs"]) * step.width
    if step.op == "linear" or step.op.endswith("_product") or "_product_" in step.op:
        return 2 * widths[0] * step.width
    return step.width
