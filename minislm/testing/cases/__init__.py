"""Sampled arguments for every op: the function of an op's name in the file of its family.

Every sampler takes a seeded `numpy.random.Generator` and returns a list of ``(args, kwargs)``: several small cases of
odd sizes, empty ones among them, float arrays in float64 and never constant.
"""

from __future__ import annotations

import importlib
import zlib
from typing import Any

import numpy as np

from minislm.ops import OPS


def sample_cases(op: str, seed: int = 0) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Draw arguments for an op: several odd, small sizes, never constant.

    Parameters
    ----------
    op : str
        A row of the op table.
    seed : int
        Different seeds draw different numbers.

    Returns
    -------
    list of (tuple, dict)
        Positional and keyword arguments; float arrays are float64.
    """
    module, _, function = OPS[op].function.partition(":")
    family = importlib.import_module(f"minislm.testing.cases.{module}")
    cases: list[tuple[tuple[Any, ...], dict[str, Any]]] = getattr(family, function)(
        np.random.default_rng([seed, zlib.crc32(op.encode())])
    )
    return cases
