"""Models of the mission at their full size: random weights, as published, quantized, loaded and run.

    python tests/benchmarks/bench_full_size.py -o /tmp/full
    python tests/benchmarks/bench_full_size.py gptj-6b -o /tmp/full --format int4-32 --keep

For one model after the other: a folder is written as its publisher's is (config.json with the sizes of the checkpoint,
shards of at most 2 GiB in bfloat16, a tiny tokenizer), quantized in a fresh process, and loaded and run in another.
Decoders read 64 tokens and write 16; encoders read 8 texts of 128 tokens. Peaks are those of the whole process, with
the pages of mapped files that were resident; "own" is what the process held itself when it had run. Both folders are
removed afterwards unless ``--keep``. Weights are drawn out of 65,536 normal numbers, which is faster than drawing each.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import minislm
from minislm.benchmark.shapes import bert, publish
from minislm.compression import compress
from minislm.compression.quantize import Quantize
from minislm.evaluation.memory import resident_peak
from minislm.inference.program import Program
from minislm.models.encoder import Encoder

PROMPT, NEW = 64, 16
TEXTS, LENGTH = 8, 128
GIB = 2**30

CONFIGS: dict[str, dict[str, Any]] = {
    "bert-tiny": bert(128, 2),
    "bert-mini": bert(256, 4),
    "bert-small": bert(512, 4),
    "bert-medium": bert(512, 8),
    "bert-base": bert(768, 12),
    "distilbert": {
        "model_type": "distilbert", "architectures": ["DistilBertForMaskedLM"], "vocab_size": 30522, "dim": 768,
        "n_layers": 6, "n_heads": 12, "hidden_dim": 3072, "max_position_embeddings": 512, "activation": "gelu",
        "dropout": 0.1, "attention_dropout": 0.1, "tie_weights_": True, "pad_token_id": 0,
    },
    "mobilebert": {
        "model_type": "mobilebert", "architectures": ["MobileBertForPreTraining"], "vocab_size": 30522,
        "hidden_size": 512, "num_hidden_layers": 24, "num_attention_heads": 4, "intermediate_size": 512,
        "hidden_act": "relu", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.1, "embedding_size": 128,
        "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "trigram_input": True,
        "use_bottleneck": True, "intra_bottleneck_size": 128, "use_bottleneck_attention": False,
        "key_query_shared_bottleneck": True, "num_feedforward_networks": 4, "normalization_type": "no_norm",
        "classifier_activation": False, "pad_token_id": 0,
    },
    "gpt-neo-125m": {
        "model_type": "gpt_neo", "architectures": ["GPTNeoForCausalLM"], "vocab_size": 50257, "hidden_size": 768,
        "num_layers": 12, "num_heads": 12, "intermediate_size": None, "max_position_embeddings": 2048,
        "attention_types": [[["global", "local"], 6]], "window_size": 256, "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5, "bos_token_id": 50256, "eos_token_id": 50256,
    },
    "phi-2": {
        "model_type": "phi", "architectures": ["PhiForCausalLM"], "vocab_size": 51200, "hidden_size": 2560,
        "intermediate_size": 10240, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
        "hidden_act": "gelu_new", "max_position_embeddings": 2048, "partial_rotary_factor": 0.4, "rope_theta": 10000.0,
        "rope_scaling": None, "layer_norm_eps": 1e-5, "qk_layernorm": False, "tie_word_embeddings": False,
        "bos_token_id": 50256, "eos_token_id": 50256,
    },
    "gptj-6b": {
        "model_type": "gptj", "architectures": ["GPTJForCausalLM"], "vocab_size": 50400, "n_embd": 4096, "n_layer": 28,
        "n_head": 16, "n_inner": None, "n_positions": 2048, "rotary_dim": 64, "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5, "tie_word_embeddings": False, "bos_token_id": 50256, "eos_token_id": 50256,
    },
    "llama-2-7b": {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32000, "hidden_size": 4096,
        "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
        "hidden_act": "silu", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_scaling": None,
        "tie_word_embeddings": False, "attention_bias": False, "bos_token_id": 1, "eos_token_id": 2,
    },
}  # fmt: skip


def quantize(source: str, target: str, format_name: str) -> dict[str, float]:
    """Do what ``minislm compress`` does; run in a process of its own."""
    start = time.perf_counter()
    small, report = compress(minislm.load(source), Quantize(format_name))
    minislm.save(small, target)
    return {"output": report.bytes_after, "seconds": time.perf_counter() - start}


def run(source: str) -> dict[str, float]:
    """Load a model and let it read, and write if it can; run in a process of its own."""
    start = time.perf_counter()
    lm = minislm.load(source)
    loaded = time.perf_counter() - start
    if isinstance(lm.model, Encoder):
        program, rng = Program.of(lm.model), np.random.default_rng(0)
        ids, counts = rng.integers(0, lm.model.config.vocab_size, TEXTS * LENGTH), np.full(TEXTS, LENGTH)
        start = time.perf_counter()
        found = program.run_all(ids, counts)
        speed = ids.size / (time.perf_counter() - start)
        if not all(np.isfinite(result).all() for result in found.values()):
            raise ValueError(f"{source} gives numbers that are not finite")
        return {"load": loaded, "prompt": speed, "generation": 0.0}
    timings = lm.generate([*range(PROMPT)], max_new_tokens=NEW, temperature=0.0, ignore_eos=True).timings
    return {
        "load": loaded,
        "prompt": timings.prompt_tokens_per_s,
        "generation": timings.generation_tokens_per_s,
    }


def anonymous() -> int:
    """Tell what this process holds itself, mapped files left out, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def child(name: str, *arguments: str) -> dict[str, float]:
    """Run `quantize` or `run` in a fresh process; return what it found, and its memory."""
    command = [sys.executable, __file__, "--child", name, *arguments]
    alone = {"OPENBLAS_NUM_THREADS": "1", **os.environ}  # on a busy machine its threads mostly wait for each other
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=alone)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measured(name: str, folder: Path, format_name: str, *, keep: bool) -> str:
    """Write, quantize and run one model; return its line of the table."""
    source, target = folder / name, folder / f"{name}-{format_name}"
    try:
        n_parameters = publish(CONFIGS[name], source, dtype=np.dtype(ml_dtypes.bfloat16))
        published = sum(file.stat().st_size for file in source.glob("*.safetensors"))
        made = child("quantize", str(source), str(target), format_name)
        ran = child("run", str(target))
    finally:
        if not keep:
            shutil.rmtree(source, ignore_errors=True)
            shutil.rmtree(target, ignore_errors=True)
    speed = f"{ran['generation']:10.2f}" if ran["generation"] else f"{'-':>10}"
    return (
        f"{name:13} {n_parameters / 1e6:9.1f} {published / GIB:9.3f} {made['output'] / GIB:8.3f} "
        f"{made['peak'] / GIB:8.3f} {(made['peak'] - made['output']) / GIB:8.3f} {made['seconds']:8.1f} "
        f"{ran['load']:6.2f} {ran['peak'] / GIB:8.3f} {ran['own'] / GIB:8.3f} {ran['prompt']:9.1f} {speed}"
    )


def main() -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(CONFIGS), metavar="MODEL", help=", ".join(CONFIGS))
    parser.add_argument("-o", "--output", type=Path, required=True, help="where the folders are written meanwhile")
    parser.add_argument("--format", default="int4-32")
    parser.add_argument("--keep", action="store_true", help="leave the folders there")
    options = parser.parse_args()
    for name in options.models:
        if name not in CONFIGS:
            parser.error(f"unknown model {name!r}; there are {', '.join(CONFIGS)}")
    print(f"{options.format}; bytes in GiB; peaks of fresh processes; speeds in tokens/s, of one run")
    print(
        f"{'model':13} {'M params':>9} {'published':>9} {'output':>8} {'quantize':>8} {'-output':>8} {'seconds':>8} "
        f"{'load s':>6} {'run':>8} {'own':>8} {'prompt':>9} {'generation':>10}"
    )
    for name in options.models:
        print(measured(name, options.output, options.format, keep=options.keep), flush=True)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        values = {"quantize": quantize, "run": run}[sys.argv[2]](*sys.argv[3:])
        print(json.dumps({**values, "peak": resident_peak(), "own": anonymous()}))
    else:
        sys.exit(main())
