"""What replays save: passes that are done again by one call, beside the same passes step by step.

    python tests/benchmarks/bench_replays.py

A second table shows calls of a `LanguageModel` that find the program of the call before, beside calls that do not. Both
first give the same bits, then take turns for seven rounds; medians are shown. Weights are random.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from unittest import mock

import numpy as np

from minislm.compression import compress
from minislm.compression.quantize import Quantize
from minislm.inference import reading, replays
from minislm.inference.cache import KVCache
from minislm.inference.program import Program
from minislm.language_model import LanguageModel
from minislm.models import model_class
from minislm.models.base import Model
from minislm.models.decoder import DecoderConfig
from minislm.models.encoder import Encoder, EncoderConfig
from minislm.text.tokenizer import Encoded, Tokenizer

ROUNDS, NEW_TOKENS, TEXTS, LENGTH = 7, 200, 50, 32
LLAMA = {"positions": "rotary", "norm": "rms", "mlp": "gated", "activation": "silu", "biases": ()}
DECODERS = {
    "decoder of 0.9M": DecoderConfig.uniform(
        vocab_size=1024, d_model=128, context=256, n_layers=4, n_heads=4, d_ff=512
    ),
    "decoder of 15M": DecoderConfig.uniform(
        vocab_size=32000, d_model=288, context=256, n_layers=6, n_heads=6, d_ff=768, **LLAMA
    ),
}
BERT_TINY = EncoderConfig.uniform(vocab_size=30522, d_model=128, context=512, n_layers=2, n_heads=2, d_ff=512)


def write(model: Model) -> tuple[float, bytes]:
    """Generate greedily; return the seconds of a token, and the tokens."""
    program, cache = Program.of(model), KVCache.create(model.config.layers, 1, NEW_TOKENS)
    slots, counts = np.array([cache.claim()]), np.ones(1, np.int64)
    ids = [np.array([1])]
    start = time.perf_counter()
    for _ in range(NEW_TOKENS):
        ids.append(program.run(ids[-1], slots, counts, cache).argmax(axis=1))
    return (time.perf_counter() - start) / NEW_TOKENS, np.concatenate(ids).tobytes()


def read(model: Model) -> tuple[float, bytes]:
    """Read one text often; return the seconds of the median time, and the hidden states."""
    program, ids, counts = Program.of(model, ["hidden"]), np.arange(1000, 1000 + LENGTH), np.array([LENGTH])
    seconds = []
    for _ in range(TEXTS):
        start = time.perf_counter()
        hidden = program.run_all(ids, counts)["hidden"]
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), hidden.tobytes()


def line(name: str, work: Callable[[Model], tuple[float, bytes]], model: Model) -> str:
    """Let both take turns."""

    def stepped() -> tuple[float, bytes]:
        with mock.patch.object(replays, "compiled", return_value=None):
            return work(model)

    return turns(name, lambda: work(model), stepped)


def turns(name: str, work: Callable[[], tuple[float, bytes]], other: Callable[[], tuple[float, bytes]]) -> str:
    """Compare a way with another, one after the other."""
    mine, others = list[float](), list[float]()
    for _ in range(ROUNDS + 1):
        seconds, found = work()
        mine.append(seconds)
        seconds, expected = other()
        others.append(seconds)
        assert found == expected, name
    ours, theirs = (1e6 * statistics.median(times[1:]) for times in (mine, others))
    return f"{name:32} {theirs:8.0f} {ours:8.0f} {theirs / ours:8.2f}"


def calls(name: str, model: Model) -> str:
    """Compare calls that find a program with calls that have to make one."""
    lm = LanguageModel(model, Tokenizer.train([], kind="bytes"))
    text = Encoded(list(range(5, 5 + LENGTH)), [0] * LENGTH, None)

    def call() -> tuple[float, bytes]:
        start = time.perf_counter()
        if isinstance(model, Encoder):
            found = reading.read(lm, [text], "hidden")[0].tobytes()
        else:
            found = bytes(str(lm.generate(text.ids, temperature=0.0, ignore_eos=True, max_new_tokens=16).ids), "ascii")
        return time.perf_counter() - start, found

    def anew() -> tuple[float, bytes]:
        kept, lm.spares._waiting = lm.spares._waiting, {}
        found = call()
        lm.spares._waiting = kept
        return found

    call(), call()  # the first pass of a shape is neither written down nor done again
    return turns(name, call, anew)


def main() -> None:
    """Print a table."""
    print(f"{'':32} {'steps us':>8} {'again us':>8} {'ratio':>8}")
    for name, config in DECODERS.items():
        model = model_class(config.type)[0].create(config, seed=1)
        print(line(f"{name}, float32", write, model), flush=True)
        for format in ("int8", "int4-32"):
            print(line(f"{name}, {format}", write, compress(model, Quantize(format))[0]), flush=True)
    encoder = model_class("encoder")[0].create(BERT_TINY, seed=1)
    print(line("BERT-Tiny, 32 tokens", read, encoder))
    print(f"\n{'calls':32} {'anew us':>8} {'kept us':>8} {'ratio':>8}")
    print(calls(f"16 tokens, {name}, int4-32", compress(model, Quantize("int4-32"))[0]))
    print(calls("BERT-Tiny, 32 tokens, int8", compress(encoder, Quantize("int8"))[0]))


if __name__ == "__main__":
    main()
