"""Where the time of a Program goes: every step timed by itself, beside what it reads and multiplies."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

import minislm
from minislm.benchmark.inputs import encoder_batch, prompt_ids
from minislm.benchmark.shapes import SHAPES
from minislm.benchmark.stored import AS_STORED, stored_folder
from minislm.inference.cache import KVCache
from minislm.inference.cost import StepCost
from minislm.inference.passes import CachedPass, Pass
from minislm.inference.program import Program
from minislm.models.encoder import Encoder

PROFILE = ("step", "times", "ms", "share", "GB/s", "GMAC/s")
PROMPT, TEXTS = 256, (32, 128)
ROUNDS = 7


def profile_model(model: str, cache: Path, format: str = "int4-32") -> dict[str, list[tuple[str, ...]]]:
    """Time every step of a model.

    Parameters
    ----------
    model : str
        A shape or a model folder.
    cache : Path
        Where models are kept.
    format : str
        What the weights of a shape are stored in.

    Returns
    -------
    dict of str to list of tuple of str
        For each kind of pass the rows of a table with the columns `PROFILE`: steps of one kind and width together, the
        slowest first, then all of them, and the pass as it runs when nobody times its steps.
    """
    lm = minislm.load(stored_folder(model, cache, format if model in SHAPES else AS_STORED))
    if isinstance(lm.model, Encoder):
        n_texts, n_tokens = TEXTS[0], min(TEXTS[1], lm.model.config.context)
        ids_BT, mask_BT = encoder_batch(n_texts, n_tokens, lm.model.config.vocab_size)
        name = f"{n_texts} texts of {n_tokens} tokens"
        return {name: _profile(Program.of(lm.model, ["hidden"]), ids_BT.ravel(), mask_BT.sum(axis=1), None)}
    program = lm.program()
    found = {}
    length = min(PROMPT, lm.model.config.context - 1)
    for name, n_tokens in ((f"a prompt of {length} tokens", length), (f"one token after {length}", 1)):
        kv = KVCache.create(lm.model.config.layers, 1, length + 1)
        counts_B = np.array([length])
        ids_N = prompt_ids(length, lm.model.config.vocab_size)
        slots_B = np.array([kv.claim()])
        if n_tokens == 1:
            program.run(ids_N, slots_B, counts_B, kv)
        found[name] = _profile(program, ids_N[:n_tokens], np.array([n_tokens]), kv)
    return found


def _profile(program: Program, ids_N: np.ndarray, counts_B: np.ndarray, kv: KVCache | None) -> list[tuple[str, ...]]:
    """Run a pass often, with and without a clock at every step; make the rows."""
    whole, steps = [], []
    for _ in range(ROUNDS + 1):
        before = 0 if kv is None else int(kv.lengths_C[0])
        start = time.perf_counter()
        if kv is None:
            program.run_all(ids_N, counts_B)
        else:
            program.run(ids_N, np.zeros(1, np.int64), counts_B, kv)
            kv.truncate(0, before)
        whole.append(time.perf_counter() - start)
        steps.append(_timed(program, ids_N, counts_B, kv))
    seconds = np.median(np.array(steps[1:]), axis=0)
    length = int(counts_B.max()) if kv is None else int(kv.lengths_C[0] + counts_B[0])
    return _rows(program.describe(int(counts_B.sum()), length), seconds, statistics.median(whole[1:]))


def _timed(program: Program, ids_N: np.ndarray, counts_B: np.ndarray, kv: KVCache | None) -> list[float]:
    """Do what `Program.run` does; return the seconds of every step."""
    current: Any = Pass.whole(counts_B, {})
    if kv is not None:
        current = CachedPass.begin(kv, np.zeros(1, np.int64), counts_B, every=False)
    buffers = [ids_N, current.positions_N, np.zeros(ids_N.size, np.int64)]
    found = []
    for _, call in program.calls(current, buffers):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return found


def _rows(costs: list[StepCost], seconds: np.ndarray, whole: float) -> list[tuple[str, ...]]:
    """Add up steps of one kind and width."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, cost in enumerate(costs):
        groups[f"{cost.op} {cost.shape[1]}" + (f" {cost.constants[0]}" if cost.constants else "")].append(i)
    total = float(seconds.sum())
    rows: list[tuple[str, ...]] = []
    for name, members in sorted(groups.items(), key=lambda item: -seconds[item[1]].sum()):
        own = float(seconds[members].sum())
        size = sum(costs[i].size_bytes for i in members)
        products = sum(costs[i].operations for i in members) // 2
        is_product = costs[members[0]].op == "linear" or "product" in costs[members[0]].op
        rows.append((
            name, str(len(members)), f"{1e3 * own:.3f}", f"{own / total:.1%}", f"{size / own / 1e9:.2f}",
            f"{products / own / 1e9:.1f}" if is_product or "attend" in name else "",
        ))  # fmt: skip
    rows.append(("all steps", str(len(costs)), f"{1e3 * total:.3f}", "100.0%", "", ""))
    rows.append(("the pass as it runs", "1", f"{1e3 * whole:.3f}", f"{whole / total:.1%}", "", ""))
    return rows
