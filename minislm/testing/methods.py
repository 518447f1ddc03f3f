"""Laws that every compression Method keeps, whatever it does to a model.

Each function raises AssertionError where the law is broken. `samples` holds options for every row of the method table,
small enough to run in a test; an author's own Method needs none of them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minislm.compression.base import Method
from minislm.compression.report import CompressionReport
from minislm.files import safetensors
from minislm.models import build
from minislm.models.base import Model
from minislm.testing.batches import said, sample_context, sample_ids
from minislm.training.data import TrainingData
from minislm.weights.base import Weight

TRAINING = {"steps": 4, "batch_size": 2, "learning_rate": 1e-3}
SAMPLES: dict[str, tuple[dict[str, Any], ...]] = {
    "distil": (
        {"training": TRAINING},
        {"training": TRAINING, "student": "scratch", "sizes": {"n_layers": 1, "d_model": 8}, "hard_weight": 0.5},
        {"training": TRAINING, "student": "itself", "temperature": 1.0},
        {"training": TRAINING, "hidden_weight": 1.0, "attention_weight": 0.5, "cosine_weight": 0.5, "layers": "last"},
    ),
    "factorise": ({"training": TRAINING, "rank": 2},),
    "lora": ({"training": TRAINING, "rank": 2}, {"training": TRAINING, "rank": 2, "merge": True}),
    "low_rank": ({"rank": 3}, {"size": 0.5}, {"energy": 0.5, "training": TRAINING}),
    "narrow": (
        {"heads": 0.5, "ff": 0.4, "samples": 3},
        {"heads": 0.6, "ff": 0.5, "scope": "global", "samples": 3, "training": TRAINING},
    ),
    "prune": (
        {"sparsity": 0.5},
        {"sparsity": 0.97, "storage": "csr", "scope": "global"},
        {"pattern": "2:4", "training": TRAINING},
        {"sparsity": 0.6, "schedule": "cubic", "every": 1, "training": TRAINING},
    ),
    "quantization_aware": (
        {"format": "int3", "training": TRAINING},
        {"format": "int4-32", "training": TRAINING, "lsq": False},
        {"format": "int8", "training": TRAINING, "activations": "static", "calibration": "minmax", "samples": 3},
        {"format": "ternary", "training": TRAINING},
        {"format": "nf4-32", "training": TRAINING},
    ),
    "quantize": (
        {"format": "int8"},
        {"format": "int4-32", "activations": "int8-32"},
        {"format": "uint3-64", "scales": "mse"},
        {"format": "nf4-64", "scales": "mse"},
        {"format": "ternary-32", "scales": "mse"},
        {"format": "int8", "activations": "static", "calibration": "mse", "samples": 3},
        {"format": "int4-32", "activations": "static", "calibration": "percentile", "percentile": 99.0},
    ),
    "train": ({"training": TRAINING},),
}


def digest(model: Model) -> str:
    """Return a hash of every byte of a model, and of how its Weights are stored.

    Parameters
    ----------
    model : Model
        To be compared with another, or with itself later.

    Returns
    -------
    str
        Equal exactly for equal models.
    """
    found = hashlib.sha256(repr((model.config, model.specs())).encode())
    for name, array in model.arrays().items():
        found.update(f"{name} {array.dtype} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def check_source_unchanged(method: Method, model: Model, data: TrainingData, where: str = "*") -> Model:
    """Check that a method changes no byte of the model that it is given, even one that cannot be written to.

    Parameters
    ----------
    method : Method
        To be checked.
    model : Model
        Small.
    data : TrainingData
        For methods that train.
    where : str
        Name pattern of the Weights.

    Returns
    -------
    Model
        What the method returned.

    Raises
    ------
    AssertionError
        The model is not what it was.
    """
    frozen = {name: array.copy() for name, array in model.arrays().items()}
    for array in frozen.values():
        array.flags.writeable = False
    source = model.with_arrays(frozen)
    before = digest(source)
    result: Model = method.run(source, data, where=where)
    assert digest(source) == before, f"{method.name} changed the model that it was given"
    return result


def check_repeatable(method: Method, model: Model, data: TrainingData, where: str = "*") -> None:
    """Check that a method run twice gives the same bits.

    Parameters
    ----------
    method : Method
        To be checked.
    model : Model
        Small.
    data : TrainingData
        For methods that train.
    where : str
        Name pattern of the Weights.

    Raises
    ------
    AssertionError
        The two results differ.
    """
    first, second = (digest(method.run(model, data, where=where)) for _ in range(2))
    assert first == second, f"{method.name} gives another model each time"


def check_round_trip(model: Model, folder: Path) -> None:
    """Check that a compressed model, saved and loaded, is the same, and as large on disk as it says.

    Parameters
    ----------
    model : Model
        What a method returned.
    folder : Path
        For a temporary file.

    Raises
    ------
    AssertionError
        A bit differs, or the file without its header has another size than `model.nbytes` and the report say.
    """
    path = folder / "model.safetensors"
    safetensors.write(path, model.arrays())
    loaded = build(model.config, model.specs(), safetensors.read(path))
    assert digest(loaded) == digest(model), "loading after saving gives another model"
    n_positions = min(5, model.config.context)
    ids_BT, context = sample_ids(model, 2, n_positions), sample_context(model, 2, n_positions, padding=1)
    before, after = (said(each, ids_BT, context) for each in (model, loaded))
    assert all(np.array_equal(after[name], before[name]) for name in before), "the loaded model computes something else"
    with open(path, "rb") as file:
        header = 8 + int.from_bytes(file.read(8), "little")
    stored = os.path.getsize(path) - header
    assert stored == model.nbytes, f"the file holds {stored} bytes of arrays, the model says {model.nbytes}"
    report = CompressionReport.of(model, model)
    assert report.bytes_after == stored == sum(tensor.bytes_after for tensor in report.tensors), "the report disagrees"


def check_no_worse(
    chosen: Weight,
    trivial: Weight,
    w_OI: np.ndarray,
    objective: Callable[[np.ndarray, np.ndarray], float] | None = None,
) -> None:
    """Check that a method's choice is at least as good as a trivial one of the same size.

    Parameters
    ----------
    chosen : Weight
        What the method made of the matrix.
    trivial : Weight
        What rounding down, chance or the like would have made of it, in no fewer bytes.
    w_OI : ndarray, (O, I)
        The matrix.
    objective : callable, optional
        What is to be small, given the matrix and an approximation; default: the Frobenius norm of the difference.

    Raises
    ------
    AssertionError
        The trivial choice is smaller or better.
    """
    objective = objective or (lambda w, approximation: float(np.linalg.norm(w - approximation)))
    ours, theirs = objective(w_OI, chosen.dense()), objective(w_OI, trivial.dense())
    assert chosen.nbytes <= trivial.nbytes, f"not of one size: {chosen.nbytes} and {trivial.nbytes} bytes"
    assert ours <= theirs, f"the trivial choice is better: {theirs:.6g} against {ours:.6g}"


def check_simulation_is_real(simulated: Model, real: Model) -> None:
    """Check that a model trained with simulated storage and the stored one hold the same values, bit for bit.

    Parameters
    ----------
    simulated : Model
        Its Weights compute what storage would make of them (fake-quantized, masked).
    real : Model
        Its Weights are stored.

    Raises
    ------
    AssertionError
        An entry of some matrix differs by a bit.
    """
    weights = real.weights()
    for path, weight in simulated.weights().items():
        wrong = np.count_nonzero(weight.dense() != weights[path].dense())
        assert wrong == 0, f"{wrong} of {weight.dense().size} entries of {path} differ from what was simulated"
