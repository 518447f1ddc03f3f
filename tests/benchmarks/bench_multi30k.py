"""English captions into German, from scratch: an encoder-decoder on Multi30k, judged by sacreBLEU.

    python tests/benchmarks/bench_multi30k.py --data path/to/multi30k -o out/multi30k

Joint BPE of 6,000, three blocks on each side, width 256, on the 29,000 training pairs; then the 1,000 sentences of
test_2016_flickr, each written by the likeliest token at every step and by a search with 4 beams. Interrupted and run
again with the same ``-o``, training goes on where it was. Needs the `eval` extra.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from minislm.cli.live import Live
from minislm.evaluation.translation import bleu
from minislm.language_model import LanguageModel, load, save
from minislm.text.examples import TextPair, read_pairs
from minislm.training.data import TrainingData
from minislm.training.objective import NextToken
from minislm.training.settings import TrainSettings
from minislm.training.tasks.sequences import SequencePairs
from minislm.training.train import create, train

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "multi30k"
CONTEXT = 64
SIZES = {"d_model": 256, "n_layers": 3, "n_heads": 4, "d_ff": 512, "context": CONTEXT, "dropout": 0.1}
BLEU_TARGET, MINUTES_TARGET = 20.0, 30.0


def pairs(data: Path, part: str) -> list[TextPair]:
    """Read one part of the corpus."""
    return read_pairs([data / f"{part}.en.gz", data / f"{part}.de.gz"])


def trained(data: Path, output: Path, epochs: int, batch_size: int) -> tuple[LanguageModel, float]:
    """Train, or go on with it; return the model and how many minutes its steps and evaluations took."""
    learned, held_out = pairs(data, "train"), pairs(data, "val")
    texts = [text for pair in learned for text in (pair.source, pair.target)]
    fresh = create(texts, family="transformer", vocab_size=6000, **SIZES)
    examples = SequencePairs.of(learned, fresh.tokenizer, CONTEXT, cut=True)
    steps = epochs * -(-len(learned) // batch_size)
    settings = TrainSettings(
        steps=steps,
        batch_size=batch_size,
        learning_rate=1e-3,
        min_learning_rate_ratio=0.02,
        warmup_steps=steps // 10,
        beta2=0.98,
        weight_decay=0.01,
        eval_every=max(1, steps // epochs),
        checkpoint_every=max(1, steps // epochs),
    )
    validation = SequencePairs.of(held_out, fresh.tokenizer, CONTEXT, cut=True)
    task = TrainingData(examples, validation, NextToken(label_smoothing=0.1))
    print(f"{fresh.model.n_parameters:,} parameters, {examples.n_tokens:,} tokens, {steps:,} steps", flush=True)
    with Live(quiet=False, what="train multi30k") as live:
        lm, result = train(fresh, task, settings, directory=output.with_name(output.name + ".run"), report=live)
    save(lm, output)
    return lm, result.history[-1].elapsed_s / 60


def main() -> int:
    """Train, translate, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="Folder with the .gz files.")
    parser.add_argument("-o", "--output", type=Path, default=Path("multi30k"), help="Folder of the model.")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=64, help="Pairs in a step.")
    parser.add_argument("--judge", action="store_true", help="Judge the model that stands in the folder.")
    given = parser.parse_args()
    if not given.data.is_dir():
        print(f"there is no folder {given.data}; give that of Multi30k (task 1) with --data")
        return 3
    minutes = None
    if given.judge:
        lm = load(given.output)
    else:
        lm, minutes = trained(given.data, given.output, given.epochs, given.batch_size)
        print(f"trained in {minutes:.1f} minutes (target: at most {MINUTES_TARGET:g})")
    test = pairs(given.data, "test_2016_flickr")
    scores = []
    for beams in (1, 4):
        began_s = time.perf_counter()
        written = [found.text for found in lm.translate([pair.source for pair in test], n_beams=beams)]
        quality = bleu([pair.target for pair in test], written)
        scores.append(quality.score)
        print(f"beams {beams}: BLEU {quality.score:.2f}, {time.perf_counter() - began_s:.0f} s, {quality.signature}")
    for pair, text in list(zip(test, written, strict=True))[:3]:
        print(f"  {pair.source}\n  -> {text}\n     {pair.target}")
    print(f"target: BLEU of at least {BLEU_TARGET:g}, by both")
    return 0 if min(scores) >= BLEU_TARGET and (minutes is None or minutes <= MINUTES_TARGET) else 1


if __name__ == "__main__":
    sys.exit(main())
