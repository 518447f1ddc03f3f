"""What attention costs: prompts, single tokens, encoders and training beside PyTorch's; and what a long context costs.

    python tests/benchmarks/bench_attention.py
    python tests/benchmarks/bench_attention.py --threads 1 --rounds 15 --only one encoder
    python tests/benchmarks/bench_attention.py --only context --layers 22

Kernel and PyTorch (`scaled_dot_product_attention`, the float32 that it is given) first give the same, then take turns
on the same arrays, after two seconds of work that wakes the processor. Each line shows the kernel's median time, its
GFLOP/s (hidden pairs are no operations) or, for one token, the GB/s of keys and values, and how many times faster than
PyTorch's on float32 it is (above 1: the kernel is faster), with the middle half of the rounds behind; and how far the
result is from float32's, in parts of its root mean square, where keys and values are stored in fewer bits. The line
``context`` runs a model of the 1.1B shape with ``--layers`` of its 22 layers and 4-bit weights over prompts of 512 and
4,096 tokens, in passes of 512, and compares the time of a token; and then how long one more token takes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from minislm import dispatch
from minislm.compression import compress
from minislm.compression.quantize import Quantize
from minislm.dispatch import ops
from minislm.inference.cache import KVCache
from minislm.inference.program import Program
from minislm.kernels import instruction_set
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.testing.tolerances import assert_close

STORES = ("float32", "float16", "int8")
PASS = 512
LLAMA_1B = {
    "context": 4096, "vocab_size": 4096, "d_model": 2048, "d_ff": 5632, "n_heads": 32, "n_kv_heads": 4,
    "positions": "rotary", "norm": "rms", "mlp": "gated", "activation": "silu", "biases": (), "tied": True,
}  # fmt: skip

Call = Callable[[], Any]


class Duel(NamedTuple):
    """One line: what is measured, both sides, what a call does, and how far the kernel's result is from float32's."""

    name: str
    mine: Call
    theirs: Call
    amount: float
    unit: str
    error: float = 0.0


def drawn(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Draw float32 numbers."""
    return rng.standard_normal(shape, np.float32)


def stored(x_SGK: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Store rows as a cache does."""
    rows = np.zeros(x_SGK.shape, dtype)
    scales = np.zeros(x_SGK.shape[:2], np.float32) if dtype == "int8" else None
    ops.store_rows(x_SGK, np.arange(len(x_SGK)), rows, scales)
    return rows, scales


def cached(rng: np.random.Generator, new: int, length: int, heads: int, groups: int, width: int) -> Iterator[Duel]:
    """Let the last queries of one sequence meet its keys, in a cache of each dtype."""
    q = drawn(rng, new, heads, width)
    k, v = drawn(rng, length, groups, width), drawn(rng, length, groups, width)
    table = np.array([new]), np.array([0]), np.array([length])
    tq, tk, tv = (torch.from_numpy(x).transpose(0, 1)[None] for x in (q, k, v))
    mask = None if new == 1 else torch.ones(new, length, dtype=torch.bool).tril(length - new)
    options = {"is_causal": True} if new == length else {"attn_mask": mask}

    def theirs() -> Any:
        return scaled_dot_product_attention(tq, tk, tv, enable_gqa=heads != groups, **options)

    for dtype in STORES:
        (ks, k_scales), (vs, v_scales) = stored(k, dtype), stored(v, dtype)
        out = np.empty_like(q)

        def mine(ks=ks, vs=vs, k_scales=k_scales, v_scales=v_scales, out=out) -> Any:  # type: ignore[no-untyped-def]
            if k_scales is None:
                return ops.attention_packed(q, ks, vs, *table, causal=True, out=out)
            return ops.attention_packed_int8(q, ks, vs, k_scales, v_scales, *table, causal=True, out=out)

        expected = theirs()[0].transpose(0, 1).numpy()
        if dtype == "float32":
            assert_close(mine(), expected, length=length, factor=8.0)
        error = float(np.sqrt(np.square(mine() - expected).mean() / np.square(expected).mean()))
        pairs = new * (length - new) + new * (new + 1) / 2
        size_bytes = 2 * (ks.nbytes + (0 if k_scales is None else k_scales.nbytes))
        amount, unit = (size_bytes, "GB/s") if new == 1 else (4 * pairs * heads * width, "GFLOP/s")
        yield Duel(f"{new} of {length}, {heads}/{groups} x {width}, {dtype}", mine, theirs, amount, unit, error)


def encoder(rng: np.random.Generator, texts: int, length: int, heads: int, width: int) -> Iterator[Duel]:
    """Let all tokens of some texts meet each other."""
    q, k, v = (drawn(rng, texts * length, heads, width) for _ in range(3))
    counts = np.full(texts, length)
    table, out = (counts, np.arange(texts) * length, counts), np.empty_like(q)
    tensors = [torch.from_numpy(x.reshape(texts, length, heads, width)).transpose(1, 2) for x in (q, k, v)]

    def mine() -> Any:
        return ops.attention_packed(q, k, v, *table, out=out)

    def theirs() -> Any:
        return scaled_dot_product_attention(*tensors)

    assert_close(mine(), theirs().transpose(1, 2).reshape(q.shape).numpy(), length=length, factor=8.0)
    operations = 4 * texts * length**2 * heads * width
    yield Duel(f"{texts} texts of {length}, {heads} x {width}", mine, theirs, operations, "GFLOP/s")


def training(rng: np.random.Generator, rows: int, heads: int, length: int, width: int) -> Iterator[Duel]:
    """Run the causal forward and backward."""
    q, k, v, dy = (drawn(rng, rows, length, heads, width) for _ in range(4))
    tensors = [torch.from_numpy(x).transpose(1, 2).contiguous().requires_grad_() for x in (q, k, v)]
    t_dy, out = torch.from_numpy(dy).transpose(1, 2).contiguous(), np.empty_like(q)
    y, saved = ops.attention(q, k, v, causal=True)
    t_y = scaled_dot_product_attention(*tensors, is_causal=True)

    def backward() -> Any:
        return ops.attention_backward(dy, saved, out=out)

    def their_backward() -> Any:
        return torch.autograd.grad(t_y, tensors, t_dy, retain_graph=True)

    assert_close(y, t_y.detach().transpose(1, 2).numpy(), length=length, factor=8.0)
    for mine, theirs in zip(backward()[:3], their_backward(), strict=True):
        assert_close(mine, theirs.transpose(1, 2).numpy(), length=length, factor=16.0)
    operations = 2 * rows * heads * length * (length + 1) * width
    name = f"{rows} x {heads} x {length} x {width}"
    yield Duel(
        f"forward {name}",
        lambda: ops.attention(q, k, v, causal=True, out=out),
        lambda: scaled_dot_product_attention(*(x.detach() for x in tensors), is_causal=True),
        operations,
        "GFLOP/s",
    )
    yield Duel(f"backward {name}", backward, their_backward, 2.5 * operations, "GFLOP/s")


def duels(which: str, rng: np.random.Generator) -> Iterator[Duel]:
    """Yield the lines of a group."""
    if which == "prompt":
        yield from cached(rng, 512, 512, 32, 4, 64)
        yield from cached(rng, 512, 4096, 32, 4, 64)
    elif which == "one":
        for heads, groups in ((32, 4), (12, 12), (8, 1)):
            yield from cached(rng, 1, 2048, heads, groups, 64)
    elif which == "encoder":
        yield from encoder(rng, 32, 128, 12, 32)
    elif which == "training":
        yield from training(rng, 12, 4, 64, 32)
        yield from training(rng, 16, 6, 256, 64)


def measured(duel: Duel, rounds: int, seconds: float) -> str:
    """Let both sides take turns; return the line."""
    times: list[list[float]] = [[], []]
    sides = duel.mine, duel.theirs
    for side in sides:
        side()
    start = time.perf_counter()
    duel.mine()
    repeats = max(1, int(seconds / (time.perf_counter() - start + 1e-7)))
    for _ in range(rounds):
        for side, own in zip(sides, times, strict=True):
            start = time.perf_counter()
            for _ in range(repeats):
                side()
            own.append((time.perf_counter() - start) / repeats)
    mine = statistics.median(times[0])
    ratios = sorted(theirs / mine for mine, theirs in zip(*times, strict=True))
    low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
    return (
        f"{duel.name:40} {1e6 * mine:10.1f} us {duel.amount / mine / 1e9:7.1f} {duel.unit:8}"
        f"{statistics.median(ratios):6.2f} ({low:.2f}-{high:.2f})"
        + (f"  error {duel.error:.2%}" if duel.error > 1e-5 else "")
    )


def context(n_layers: int, rounds: int, dtype: str) -> str:
    """Return the line of what a long context costs."""
    config = DecoderConfig.uniform(**LLAMA_1B, n_layers=n_layers)
    model, _ = compress(Decoder.create(config), Quantize("int4-32"))
    program, rng = Program.of(model), np.random.default_rng(0)
    cache = KVCache.create(config.layers, 1, 4096, dtype=dtype)
    slot = cache.claim()
    ids = rng.integers(0, config.vocab_size, 4096)
    times: dict[int, list[float]] = {512: [], 4096: []}
    for _ in range(rounds):
        for length, own in times.items():
            cache.truncate(slot, 0)
            start = time.perf_counter()
            for first in range(0, length, PASS):
                program.run(ids[first : first + PASS], np.array([slot]), np.array([PASS]), cache)
            own.append((time.perf_counter() - start) / length)
    one = []
    for token in ids[:17]:
        cache.truncate(slot, 4095)
        start = time.perf_counter()
        program.run(np.array([token]), np.array([slot]), np.array([1]), cache)
        one.append(time.perf_counter() - start)
    short, long = (statistics.median(times[length][1:]) for length in (512, 4096))
    return (
        f"1.1B, {n_layers} layers, cache {dtype}: {1 / short:,.0f} tokens/s over 512, {1 / long:,.0f} over 4,096: "
        f"{short / long:.2f}; one more token takes {1e3 * statistics.median(one):.2f} ms"
    )


def main() -> int:
    """Parse the command line, check, time, print."""
    groups = ("prompt", "one", "encoder", "training", "context")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=groups, choices=groups)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.02, help="time of one side in one round")
    parser.add_argument("--threads", type=int, default=dispatch.threads())
    parser.add_argument("--layers", type=int, default=2, help="of the model whose context is measured")
    options = parser.parse_args()
    dispatch.threads(options.threads)
    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    print(f"{options.threads} threads, {instruction_set().chosen}; PyTorch {torch.__version__}")
    warm, until = drawn(rng, 512, 512), time.perf_counter() + 2
    while time.perf_counter() < until:
        warm @ warm
    for group in options.only:
        if group == "context":
            for dtype in STORES:
                print(context(options.layers, min(options.rounds, 5), dtype), flush=True)
        for duel in duels(group, rng):
            print(measured(duel, options.rounds, options.seconds), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
