"""What the bits of a run depend on besides its settings: a resumed run compares it and tells what has changed."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
from typing import Any

import numpy as np

import minislm
from minislm.dispatch import backend, threads
from minislm.processors import available_processors

_BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_CORETYPE")


def environment() -> dict[str, Any]:
    """Describe this process as far as it decides the last bit of a sum.

    Returns
    -------
    dict
        JSON values: versions, BLAS and its settings, instruction sets (NumPy's and the compiled kernels'), threads, and
        the tier that runs each op.
    """
    built: Any = np.show_config(mode="dicts")
    blas = built.get("Build Dependencies", {}).get("blas", {})
    return {
        "minislm": minislm.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": f"{blas.get('name')} {blas.get('version')}",
        "blas_settings": {name: os.environ.get(name) for name in _BLAS_VARIABLES},
        "machine": platform.machine(),
        "instruction_sets": built.get("SIMD Extensions", {}).get("found", []),
        "kernels": _kernels(),
        "processors": available_processors(),
        "threads": threads(),
        "tiers": {name: choice.tier for name, choice in backend().items()},
    }


def _kernels() -> str:
    """Name the instruction set that the compiled kernels use; empty without them."""
    if importlib.util.find_spec("minislm.kernels") is None:
        return ""
    chosen: str = importlib.import_module("minislm.kernels").instruction_set().chosen
    return chosen


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return a line for every field that differs.

    Parameters
    ----------
    before, now : dict
        What `environment` returned.

    Returns
    -------
    list of str
        Each starts with ``resume_not_bitwise``; empty: a resumed run ends in the same bits as one never interrupted.
    """
    lines = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
            old, new = ({key: side.get(key) for key in keys} for side in (old, new))
        if old != new:
            lines.append(f"resume_not_bitwise: {name} was {old}, is {new}")
    return lines
