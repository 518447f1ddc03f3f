"""Sentences into calendar events: an encoder-decoder from scratch, judged on days that it never saw; a student; int8.

    python tests/benchmarks/bench_calendar.py -o out/calendar

The sentences are those of `tutorials/calendar_grammar.py`. A tenth of the days of eight years is held out: what is said
in the examination is said on these days, about these days, and training names none of them. An answer counts if title,
start and end are right to the letter. A student of half the parameters learns from the model, and both get int8 on top.
What is done stays done when it is run again with the same ``-o``.
"""

from __future__ import annotations

import argparse
import runpy
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minislm.cli.live import Live
from minislm.cli.terminal import print_table
from minislm.compression import compress
from minislm.compression.distil import Distil
from minislm.compression.quantize import Quantize
from minislm.language_model import LanguageModel, load, save
from minislm.text.examples import TextPair
from minislm.text.records import Record
from minislm.training.data import TrainingData
from minislm.training.settings import TrainSettings
from minislm.training.tasks.sequences import SequencePairs
from minislm.training.train import create, train

GRAMMAR = Path(__file__).parents[2] / "tutorials" / "calendar_grammar.py"
CONTEXT = 48
MODEL = {"d_model": 128, "n_encoder_layers": 3, "n_layers": 2, "n_heads": 4, "d_ff": 512, "context": CONTEXT}
STUDENT = {"d_model": 96, "n_encoder_layers": 2, "n_layers": 2, "n_heads": 4, "d_ff": 384}
TARGETS = {"model": 98.0, "model-int8": 96.0, "student": 96.0, "student-int8": 96.0}  # exact answers, %


def pairs(n: int, *, held_out: bool) -> list[TextPair]:
    """Write sentences and events."""
    written = runpy.run_path(str(GRAMMAR))["examples"](n, held_out=held_out)
    return [TextPair(Record({}, GRAMMAR, number), *example) for number, example in enumerate(written, start=1)]


def settings(steps: int) -> TrainSettings:
    """Say how the model and its student are trained."""
    return TrainSettings(
        steps=steps,
        batch_size=64,
        learning_rate=2e-3,
        min_learning_rate_ratio=0.05,
        warmup_steps=200,
        beta2=0.98,
        weight_decay=0.01,
        checkpoint_every=500,
    )


def trained(output: Path, learned: Sequence[TextPair], steps: int) -> LanguageModel:
    """Train the model, or load it where it is done."""
    if output.exists():
        return load(output)
    texts = [text for pair in learned[:5000] for text in (pair.source, pair.target)]
    fresh = create(texts, family="transformer", vocab_size=800, **MODEL)
    with Live(quiet=False, what="train calendar") as live:
        data = TrainingData(SequencePairs.of(learned, fresh.tokenizer, CONTEXT))
        lm, result = train(fresh, data, settings(steps), directory=output.with_name("model.run"), report=live)
    print(f"model: {result.history[-1].elapsed_s / 60:.1f} minutes of training", flush=True)
    save(lm, output)
    return lm


def distilled(output: Path, teacher: LanguageModel, learned: Sequence[TextPair], steps: int) -> LanguageModel:
    """Train the student, or load it where it is done."""
    if output.exists():
        return load(output)
    method = Distil(settings(steps), student="scratch", sizes=STUDENT)
    with Live(quiet=False, what="distil calendar") as live:
        data = TrainingData(SequencePairs.of(learned, teacher.tokenizer, CONTEXT))
        lm, _ = compress(teacher, method, data, directory=output.with_name("student.run"), report=live)
    save(lm, output)
    return lm


def judged(lm: LanguageModel, asked: Sequence[TextPair]) -> dict[str, Any]:
    """Count right answers and time them."""
    began_s = time.perf_counter()
    written = lm.generate_batch([pair.source for pair in asked], temperature=0.0, max_new_tokens=CONTEXT)
    elapsed_s = time.perf_counter() - began_s
    wrong = [(pair, found.text) for pair, found in zip(asked, written, strict=True) if found.text != pair.target]
    return {
        "exact": 100 * (1 - len(wrong) / len(asked)),
        "per_s": len(asked) / elapsed_s,
        "wrong": wrong,
    }


def main() -> int:
    """Train, compress, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("calendar"), help="Folder of the models.")
    parser.add_argument("--examples", type=int, default=80000, help="Sentences to learn from.")
    parser.add_argument("--asked", type=int, default=2000, help="Sentences of the examination.")
    parser.add_argument("--steps", type=int, default=3000)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    learned, asked = pairs(given.examples, held_out=False), pairs(given.asked, held_out=True)
    model = trained(given.output / "model", learned, given.steps)
    student = distilled(given.output / "student", model, learned, given.steps)
    models = {"model": model, "student": student}
    models |= {f"{name}-int8": compress(lm, Quantize("int8"))[0] for name, lm in models.items()}
    found = {name: judged(lm, asked) for name, lm in models.items()}
    for pair, text in [failure for figures in found.values() for failure in figures["wrong"][:2]]:
        print(f"{pair.source}\n    {pair.target}\n    {text}")
    print_table(
        ("model", "parameters", "bytes", "exact, %", "at least", "met", "sentences/s"),
        [
            (
                name,
                f"{lm.model.n_parameters:,}",
                f"{lm.model.nbytes:,}",
                f"{found[name]['exact']:.2f}",
                f"{TARGETS[name]:g}",
                "yes" if found[name]["exact"] >= TARGETS[name] else "NO",
                f"{found[name]['per_s']:.0f}",
            )
            for name, lm in models.items()
        ],
        right=(1, 2, 3, 4, 6),
    )
    return 0 if all(figures["exact"] >= TARGETS[name] for name, figures in found.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
