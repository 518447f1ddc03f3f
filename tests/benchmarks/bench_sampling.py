"""Time of choosing a token, by the NumPy op and by the compiled kernel, with the filters that people use.

    python tests/benchmarks/bench_sampling.py

Both tiers take turns on the same normal logits for thirty rounds; medians are shown.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

import minislm
from minislm.inference.sampling import choose
from minislm.inference.settings import GenerationSettings

ROUNDS, SEEN = 30, list(range(300))
OPTIONS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.8, "top_k": 40},
    {"temperature": 0.8, "top_p": 0.95},
    {"temperature": 0.8, "min_p": 0.05},
    {"temperature": 0.8, "top_k": 50, "top_p": 0.9, "repetition_penalty": 1.1},
)


def elapsed_us(logits: np.ndarray, settings: GenerationSettings, tier: str) -> float:
    """Time one choice."""
    with minislm.backend(tier):
        began_s = time.perf_counter()
        choose(logits, settings, SEEN, 3)
        return 1e6 * (time.perf_counter() - began_s)


def main() -> None:
    """Print a row for each size of a vocabulary and each choice of filters."""
    print(f"{'tokens':>8} {'numpy, us':>10} {'C, us':>9}  settings")
    for vocab_size in (32_000, 128_256):
        logits = (3.0 * np.random.default_rng(0).normal(size=vocab_size)).astype(np.float32)
        for options in OPTIONS:
            settings = GenerationSettings(**options)
            pairs = [
                (elapsed_us(logits, settings, "numpy"), elapsed_us(logits, settings, "cython")) for _ in range(ROUNDS)
            ]
            plain, compiled = (statistics.median(times) for times in zip(*pairs, strict=True))
            print(f"{vocab_size:8,} {plain:10.0f} {compiled:9.0f}  {options}")


if __name__ == "__main__":
    main()
