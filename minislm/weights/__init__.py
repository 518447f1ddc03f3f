"""How a matrix is stored: leaves that hold numbers, nodes that add and multiply them, all of them a `Weight`.

`WEIGHTS` lists every storage; `build` makes one again from what `Weight.spec` and `Weight.arrays` said.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from minislm.errors import ModelFileError, unknown
from minislm.weights.base import Weight
from minislm.weights.checks import field_of

WEIGHTS: dict[str, str] = {
    "dense": "dense:Dense",
    "quantized": "quantized:Quantized",
    "blocks": "blocks:Blocks",
    "sparse": "sparse:Sparse",
    "diagonal": "diagonal:Diagonal",
    "sum": "sum:Sum",
    "product": "product:Product",
    "masked": "masked:Masked",
    "fake_quantized": "fake_quantized:FakeQuantized",
}


def build(spec: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Weight:
    """Make the Weight that a spec describes over the given arrays.

    Parameters
    ----------
    spec : mapping
        What `Weight.spec` returned, as read from JSON; not trusted.
    arrays : mapping of str to ndarray
        What `Weight.arrays` returned, as read from a file; they are used, not copied.

    Returns
    -------
    Weight
        Of the class that the spec's ``"type"`` names.

    Raises
    ------
    UnsupportedError
        Code ``unknown_weight``, ``unknown_format`` and the like: a name that no table holds.
    ModelFileError
        Code ``config_vs_weights``, ``size_mismatch``, ``bad_shape``, ``bad_field_type`` or ``unknown_dtype``: spec and
        arrays do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> build({"type": "dense", "shape": [1, 2]}, {"": np.ones((1, 2), np.float32)}).shape
    (1, 2)
    """
    name = field_of(spec, "type", str)
    if name not in WEIGHTS:
        raise unknown("weight", name, WEIGHTS)
    module, _, cls = WEIGHTS[name].partition(":")
    storage: type[Weight] = getattr(importlib.import_module(f"minislm.weights.{module}"), cls)
    try:
        return storage.from_arrays(spec, arrays)
    except RecursionError as error:
        raise ModelFileError("bad_field_type", "the specs of a stored weight are nested too deeply") from error
