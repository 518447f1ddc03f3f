"""Arguments that are big enough for kernels to share among threads, with sizes that no block divides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Case = tuple[tuple[Any, ...], dict[str, Any]]


def _norm(rng: np.random.Generator) -> Case:
    return (1.5 + rng.normal(size=(2101, 129)), rng.normal(size=129)), {"eps": 1e-5}


def _layer_norm(rng: np.random.Generator) -> Case:
    (x_ND, w_D), options = _norm(rng)
    return (x_ND, w_D, rng.normal(size=129)), options


def _one_array(rng: np.random.Generator) -> Case:
    return (2.5 * rng.normal(size=(1013, 131)),), {}


def _two_arrays(rng: np.random.Generator) -> Case:
    return (2.5 * rng.normal(size=(1013, 131)), rng.normal(size=(1013, 131))), {}


def _add_bias(rng: np.random.Generator) -> Case:
    return (rng.normal(size=(3001, 301)), rng.normal(size=301)), {}


def _embedding(rng: np.random.Generator) -> Case:
    return (rng.integers(0, 301, 3001), rng.normal(size=(301, 259))), {}


def _attention(rng: np.random.Generator) -> Case:
    q_BTHK = rng.normal(size=(3, 131, 8, 17))
    k_BSGK, v_BSGK = rng.normal(size=(2, 3, 150, 4, 17))
    return (q_BTHK, k_BSGK, v_BSGK), {"causal": True, "window": 100, "starts_B": np.array([19, 0, 7])}


def _attention_one(rng: np.random.Generator) -> Case:
    k_CSGK, v_CSGK = rng.normal(size=(2, 5, 1201, 4, 33))
    slots_B, lengths_B = np.array([4, 0, 2, 1]), np.array([1201, 1100, 700, 1])
    return (rng.normal(size=(4, 8, 33)), k_CSGK, v_CSGK, slots_B, lengths_B), {}


def _rotary(rng: np.random.Generator) -> Case:
    return (rng.normal(size=(1501, 5, 33)), rng.integers(0, 900, 1501)), {"width": 30}


def _cross_entropy(rng: np.random.Generator) -> Case:
    targets_N = rng.integers(0, 130, 1003)
    targets_N[::7] = -100
    return (3.0 * rng.normal(size=(1003, 130)), targets_N), {"label_smoothing": 0.1}


def _adamw(rng: np.random.Generator) -> Case:
    w, dw, m = rng.normal(size=(3, 300_001))
    options = {"step": 3, "learning_rate": 1e-2, "beta1": 0.9, "beta2": 0.98, "eps": 1e-8, "decay": 0.1}
    return (w, dw, m, np.square(rng.normal(size=300_001))), options


LARGE: dict[str, Callable[[np.random.Generator], Case]] = {
    "add_bias": _add_bias,
    "embedding": _embedding,
    "layer_norm": _layer_norm,
    "rms_norm": _norm,
    "gelu": _one_array,
    "gelu_tanh": _one_array,
    "silu_gate": _two_arrays,
    "softmax": _one_array,
    "attention": _attention,
    "attention_one": _attention_one,
    "rotary": _rotary,
    "cross_entropy": _cross_entropy,
    "adamw": _adamw,
}
